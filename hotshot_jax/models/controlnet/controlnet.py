"""SDXL's ControlNet: a copy of the UNet's way down that sees control frames.

Zhang et al., 2023, "Adding Conditional Control to Text-to-Image Diffusion Models",
https://arxiv.org/abs/2302.05543.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.encoder import Encoder, ProjectedText
from hotshot_jax.models.unet.unet import Residuals

Scale = jax.Array | float


class ControlNetConditioningEmbedding(nnx.Module):
    """Convolutions that bring control frames to the size and width of the first level."""

    def __init__(self, config: ControlNetConfig, layers: Layers):
        widths = config.conditioning_embedding_out_channels
        self.conv_in = layers.conv(config.conditioning_channels, widths[0], 3)
        blocks = []
        for width, following in itertools.pairwise(widths):
            blocks.append(layers.conv(width, width, 3))
            blocks.append(layers.conv(width, following, 3, stride=2, padding=((1, 1), (1, 1))))
        self.blocks = nnx.List(blocks)
        self.conv_out = layers.conv(widths[-1], config.block_out_channels[0], 3, zero=True)

    def __call__(self, frames: jax.Array) -> jax.Array:
        """Maps `[batch, frames, height, width, conditioning_channels]` to the first level.

        Returns:
            `[batch, frames, height / size_ratio, width / size_ratio, block_out_channels[0]]`.
        """
        x = jax.nn.silu(self.conv_in(frames))
        for block in self.blocks:
            x = jax.nn.silu(block(x))
        return self.conv_out(x)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class EmbeddedCondition:
    """Control frames after the conditioning embedding.

    They depend on neither timestep nor latents, so one embedding serves a whole sampling run.

    Attributes:
        features: one tensor for each kind of control frames (one, but for union ControlNets),
            `[rows, frames, height, width, channels]` in latents.
    """

    features: list[jax.Array]


class ControlNetModel(Encoder):
    """Predicts what to add to a UNet's skips and mid block, so that it follows control frames.

    Every frame is on its own: group statistics do not pool over frames and there are no temporal
    transformers, as in the image model that it was trained as.
    """

    config: ControlNetConfig

    def __init__(
        self,
        config: ControlNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        layers = Layers.create(rngs, dtype, param_dtype)
        super().__init__(
            config,
            layers,
            mid_cross_attention=config.mid_cross_attention,
        )
        self.controlnet_cond_embedding = ControlNetConditioningEmbedding(config, layers)
        self.controlnet_down_blocks = nnx.List(
            [layers.conv(width, width, 1, zero=True) for width in config.skip_channels]
        )
        bottom = config.block_out_channels[-1]
        self.controlnet_mid_block = layers.conv(bottom, bottom, 1, zero=True)

    def embed_condition(self, *controlnet_cond: jax.Array) -> EmbeddedCondition:
        """Embeds control frames, once for a whole sampling run.

        Args:
            controlnet_cond: for each kind of control frames (one, but for union ControlNets),
                `[rows, frames, height, width, conditioning_channels]` in pixels, from 0 to 1.
        """
        if self.config.controlnet_conditioning_channel_order == "bgr":
            controlnet_cond = tuple(frames[..., ::-1] for frames in controlnet_cond)
        return EmbeddedCondition(
            [self.controlnet_cond_embedding(frames) for frames in controlnet_cond]
        )

    def __call__(
        self,
        sample: jax.Array,
        timestep: jax.Array,
        encoder_hidden_states: jax.Array | ProjectedText,
        text_embeds: jax.Array,
        time_ids: jax.Array,
        controlnet_cond: jax.Array | EmbeddedCondition,
        *,
        conditioning_scale: Scale = 1.0,
        guess_mode: bool = False,
        first_only: bool = False,
    ) -> Residuals:
        """Predicts the residuals of noisy latents.

        Args:
            sample: `[batch, frames, height, width, in_channels]`.
            timestep: `[batch]` or a scalar, in the training schedule's steps.
            encoder_hidden_states: text embeddings, shared by all frames or one for each, as
                `project_text` takes them, or what it made of them.
            text_embeds: pooled text `[batch, text_channels]` or `[batch, frames, text_channels]`.
            time_ids: original size, crop offset, target size in pixels, `[batch, 6]`.
            controlnet_cond: control frames from 0 to 1, `[rows, frames, size_ratio * height,
                size_ratio * width, conditioning_channels]`, or what `embed_condition` made of
                them. `rows` divides `batch`; the rows are repeated as a whole, as guidance does.
            conditioning_scale: what all residuals are multiplied by: a scalar, or by frame
                `[frames, 1, 1, 1]` or `[batch, frames, 1, 1, 1]`.
            guess_mode: multiplies the residuals by 0.1 at the top up to 1 at the bottom.
            first_only: gives that of the first skip alone, which needs none of the blocks.

        Returns:
            Residuals in the compute dtype, for a UNet of the same widths.

        Raises:
            ValueError: the control frames do not have the size of the latents.
        """
        condition = (
            controlnet_cond
            if isinstance(controlnet_cond, EmbeddedCondition)
            else self.embed_condition(controlnet_cond)
        )
        time_embedding = self.embed_time_and_sizes(timestep, text_embeds, time_ids)
        x = self.conv_in(sample)
        (features,) = self._features(condition, x)
        return self._residuals(
            x + features,
            time_embedding,
            encoder_hidden_states,
            self._scales(conditioning_scale, guess_mode),
            first_only,
        )

    def _features(self, condition: EmbeddedCondition, x: jax.Array) -> list[jax.Array]:
        rows = []
        for features in condition.features:
            if features.shape[1:] != x.shape[1:] or x.shape[0] % features.shape[0]:
                raise ValueError(
                    f"control frames embedded as {features.shape} do not fit latents of "
                    f"{x.shape}: [batch, frames, height, width, channels]"
                )
            repeats = x.shape[0] // features.shape[0]
            rows.append(jnp.concatenate([features] * repeats) if repeats > 1 else features)
        return rows

    def _scales(self, conditioning_scale: Scale, guess_mode: bool) -> jax.Array:
        count = len(self.controlnet_down_blocks) + 1
        profile = np.logspace(-1, 0, count) if guess_mode else np.ones(count)
        scale = jnp.asarray(conditioning_scale, jnp.float32)
        return jnp.asarray(profile, jnp.float32).reshape(-1, *[1] * scale.ndim) * scale

    def _residuals(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        encoder_hidden_states: jax.Array | ProjectedText,
        scales: jax.Array,
        first_only: bool,
    ) -> Residuals:
        # In float32, so that a scale such as 0.7 is not rounded to bfloat16 before it is used.
        def scaled(output: jax.Array, scale: jax.Array) -> jax.Array:
            return (output.astype(jnp.float32) * scale).astype(output.dtype)

        if first_only:
            return Residuals([scaled(self.controlnet_down_blocks[0](x), scales[0])], None)
        text = (
            encoder_hidden_states
            if isinstance(encoder_hidden_states, ProjectedText)
            else self.project_text(encoder_hidden_states)
        )
        x, skips = self.encode(x, time_embedding, text)
        outputs = [
            block(skip) for block, skip in zip(self.controlnet_down_blocks, skips, strict=True)
        ]
        *down_blocks, mid_block = map(scaled, [*outputs, self.controlnet_mid_block(x)], scales)
        return Residuals(down_blocks, mid_block)


def add_residuals(residuals: Sequence[Residuals]) -> Residuals:
    """The sum of what several ControlNets add."""
    return jax.tree.map(lambda *parts: sum(parts[1:], start=parts[0]), *residuals)


def prepend_zeros(residuals: Residuals) -> Residuals:
    """Residuals of a guided batch from those of its conditional half, which comes last.

    Guess mode runs the ControlNet on that half only; the other gets zeros.
    """
    return jax.tree.map(lambda x: jnp.concatenate([jnp.zeros_like(x), x]), residuals)
