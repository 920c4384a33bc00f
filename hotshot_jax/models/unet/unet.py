"""Hotshot-XL's UNet: SDXL's UNet with a temporal transformer after every layer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.blocks import UpBlock3D
from hotshot_jax.models.unet.config import UNet3DConfig
from hotshot_jax.models.unet.encoder import Encoder, ProjectedText


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Residuals:
    """What a ControlNet adds to the UNet.

    Attributes:
        down_blocks: one tensor for each skip: `conv_in`, then each layer's output and each
            downsampler's, `[batch, frames, height, width, channels]`; only the first where no more
            is asked for.
        mid_block: added to the mid block's output; None likewise.
    """

    down_blocks: list[jax.Array]
    mid_block: jax.Array | None


class UNet3DConditionModel(Encoder):
    """Predicts the noise in the latents of a video.

    Group statistics of the resnets pool over frames, also when the temporal layers are off; those
    of the transformers do not.
    """

    config: UNet3DConfig

    def __init__(
        self,
        config: UNet3DConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        layers = Layers.create(rngs, dtype, param_dtype)
        super().__init__(config, layers, temporal=config.temporal)
        levels = config.levels(config.temporal)
        top, channels = levels[0], levels[-1].channels
        skip_channels = config.skip_channels

        up_blocks = []
        for level in reversed(levels):
            taken = [skip_channels.pop() for _ in range(config.layers_per_block + 1)]
            up_blocks.append(UpBlock3D(channels, taken, level, layers, upsample=level is not top))
            channels = level.channels
        self.up_blocks = nnx.List(up_blocks)

        self.conv_norm_out = layers.group_norm(
            top.channels, config.norm_num_groups, epsilon=config.norm_eps, pool_frames=True
        )
        self.conv_out = layers.conv(top.channels, config.out_channels, 3)

    def project_text(self, encoder_hidden_states: jax.Array) -> ProjectedText:
        """What the spatial transformers read of text embeddings; see `Encoder.project_text`."""
        text = self._text_by_frame(encoder_hidden_states)
        return dataclasses.replace(
            super().project_text(text),
            up_blocks=[block.project_text(text) for block in self.up_blocks],
        )

    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array | ProjectedText,
        text_embeds: jax.Array,
        time_ids: jax.Array,
        *,
        enable_temporal_attentions: bool = True,
        residuals: Residuals | None = None,
        motion_scale: jax.Array | None = None,
    ) -> jax.Array:
        """Predicts the noise (or velocity, or sample) of noisy latents.

        Args:
            sample: `[batch, frames, height, width, in_channels]`.
            timestep: `[batch]` or a scalar, in the training schedule's steps.
            encoder_hidden_states: text embeddings, shared by all frames or one for each, as
                `project_text` takes them, or what it made of them.
            text_embeds: pooled text `[batch, text_channels]` or `[batch, frames, text_channels]`.
            time_ids: original size, crop offset, target size in pixels, `[batch, 6]`.
            enable_temporal_attentions: false for single images.
            residuals: what a ControlNet adds.
            motion_scale: factor of what each block's temporal transformers add, `[batch, frames,
                blocks]`, down blocks before up blocks; one frame where all share it. None for 1.

        Returns:
            `[batch, frames, height, width, out_channels]` in the compute dtype.
        """
        return self.with_features(
            sample,
            timestep,
            encoder_hidden_states,
            text_embeds,
            time_ids,
            enable_temporal_attentions=enable_temporal_attentions,
            residuals=residuals,
            motion_scale=motion_scale,
        )[0]

    def with_features(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array | ProjectedText,
        text_embeds: jax.Array,
        time_ids: jax.Array,
        *,
        features: jax.Array | None = None,
        enable_temporal_attentions: bool = True,
        residuals: Residuals | None = None,
        motion_scale: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """The prediction, and the features that enter the last layer on the way up.

        They change little from step to step. Where those of an earlier step are given, only
        `conv_in`, the last layer (resnet, spatial and temporal transformer), `conv_norm_out` and
        `conv_out` are run: DeepCache (https://arxiv.org/abs/2312.00858) at its shallowest branch.

        Args:
            sample: as are the others, see `__call__`.
            timestep: likewise.
            encoder_hidden_states: likewise.
            text_embeds: likewise.
            time_ids: likewise.
            features: of an earlier call, as it gave them; None computes them.
            enable_temporal_attentions: see `__call__`.
            residuals: likewise; with `features` given, those of the first skip alone are used.
            motion_scale: likewise.

        Returns:
            `[batch, frames, height, width, out_channels]` and
            `[batch, frames, height, width, channels]`, both in the compute dtype.
        """
        text = (
            encoder_hidden_states
            if isinstance(encoder_hidden_states, ProjectedText)
            else self.project_text(encoder_hidden_states)
        )
        time_embedding = self.embed_time_and_sizes(timestep, text_embeds, time_ids)
        scales = []
        if motion_scale is not None:
            scales = [motion_scale[..., block] for block in range(motion_scale.shape[-1])]
        x = self.conv_in(sample)
        skips = [x]
        if features is None:
            x, skips = self.encode(
                x,
                time_embedding,
                text,
                enable_temporal_attentions=enable_temporal_attentions,
                motion_scales=scales,
            )
        if residuals is not None:
            added = residuals.down_blocks if features is None else residuals.down_blocks[:1]
            skips = [
                skip + residual.astype(skip.dtype)
                for skip, residual in zip(skips, added, strict=True)
            ]
            if features is None:
                assert residuals.mid_block is not None
                x = x + residuals.mid_block.astype(x.dtype)

        def run(index: int, x: jax.Array, taken: list[jax.Array], first: int = 0) -> jax.Array:
            with jax.named_scope(f"up_blocks.{index}"):
                return self.up_blocks[index](
                    x,
                    time_embedding,
                    text.up_blocks[index],
                    taken,
                    first=first,
                    size=(skips[-1].shape[-3], skips[-1].shape[-2]),
                    enable_temporal_attentions=enable_temporal_attentions,
                    motion_scale=scales[len(self.down_blocks) + index] if scales else None,
                )

        top = len(self.up_blocks) - 1
        last = len(self.up_blocks[top].resnets) - 1
        if features is None:
            for index, up_block in enumerate(self.up_blocks):
                layers = last if index == top else len(up_block.resnets)
                x = run(index, x, [skips.pop() for _ in range(layers)])
            features = x
        x = run(top, features, skips, first=last)
        return self.conv_out(jax.nn.silu(self.conv_norm_out(x))), features
