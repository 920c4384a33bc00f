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
            downsampler's, `[batch, frames, height, width, channels]`.
        mid_block: added to the mid block's output.
    """

    down_blocks: list[jax.Array]
    mid_block: jax.Array


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
        text = (
            encoder_hidden_states
            if isinstance(encoder_hidden_states, ProjectedText)
            else self.project_text(encoder_hidden_states)
        )
        time_embedding = self.embed_time_and_sizes(timestep, text_embeds, time_ids)
        scales = []
        if motion_scale is not None:
            scales = [motion_scale[..., block] for block in range(motion_scale.shape[-1])]
        x, skips = self.encode(
            self.conv_in(sample),
            time_embedding,
            text,
            enable_temporal_attentions=enable_temporal_attentions,
            motion_scales=scales,
        )
        if residuals is not None:
            skips = [
                skip + residual.astype(skip.dtype)
                for skip, residual in zip(skips, residuals.down_blocks, strict=True)
            ]
            x = x + residuals.mid_block.astype(x.dtype)

        for index, up_block in enumerate(self.up_blocks):
            taken = [skips.pop() for _ in range(len(up_block.resnets))]
            with jax.named_scope(f"up_blocks.{index}"):
                x = up_block(
                    x,
                    time_embedding,
                    text.up_blocks[index],
                    taken,
                    size=(skips[-1].shape[-3], skips[-1].shape[-2]) if skips else None,
                    enable_temporal_attentions=enable_temporal_attentions,
                    motion_scale=scales[len(self.down_blocks) + index] if scales else None,
                )

        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
