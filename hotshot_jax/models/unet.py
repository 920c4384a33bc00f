"""Hotshot-XL's UNet: SDXL's UNet with a temporal transformer after every layer."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.embeddings import TimestepEmbedding, sinusoidal_embedding
from hotshot_jax.models.layers import Layers
from hotshot_jax.models.unet_blocks import (
    DownBlock3D,
    TextKeyValues,
    UNetMidBlock3DCrossAttn,
    UpBlock3D,
)
from hotshot_jax.models.unet_config import UNet3DConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ProjectedText:
    """Keys and values of the text for every spatial transformer.

    They depend on neither timestep nor frame, so one projection serves a whole sampling run.

    Attributes:
        down_blocks: for each block, for each of its transformers, keys and values, each
            `[depth, batch, tokens, heads, channels / heads]`.
        mid_block: the same for the mid block.
        up_blocks: the same for the up blocks.
    """

    down_blocks: list[TextKeyValues]
    mid_block: TextKeyValues
    up_blocks: list[TextKeyValues]


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


def embed_time_and_sizes(
    timestep: jax.Array,
    pooled_text: jax.Array,
    time_ids: jax.Array,
    config: UNet3DConfig,
    time_embedding: TimestepEmbedding,
    add_embedding: TimestepEmbedding,
) -> jax.Array:
    """The time embedding, with pooled text and sizes added (SDXL, section 2.2).

    Args:
        timestep: `[batch]` or a scalar.
        pooled_text: `[batch, text_channels]`.
        time_ids: original size, crop offset and target size, `[batch, 6]`, in pixels.
        config: of the model that the layers belong to.
        time_embedding: maps the embedded timestep.
        add_embedding: maps pooled text and embedded sizes.

    Returns:
        `[batch, time_channels]`.
    """
    batch = pooled_text.shape[0]
    timestep = jnp.broadcast_to(timestep, (batch,))
    time = time_embedding(sinusoidal_embedding(timestep, config.block_out_channels[0]))
    sizes = sinusoidal_embedding(time_ids, config.addition_time_embed_dim).reshape(batch, -1)
    return time + add_embedding(jnp.concatenate([pooled_text.astype(jnp.float32), sizes], axis=-1))


class UNet3DConditionModel(nnx.Module):
    """Predicts the noise in the latents of a video.

    Group statistics of the resnets pool over frames, also when the temporal layers are off; those
    of the transformers do not.
    """

    def __init__(
        self,
        config: UNet3DConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Any = jnp.float32,
        param_dtype: Any = jnp.float32,
    ):
        layers = Layers.create(rngs, dtype, param_dtype)
        levels = config.levels()
        top, bottom = levels[0], levels[-1]
        self.config = config
        self.dtype = dtype

        self.conv_in = layers.conv(config.in_channels, top.channels, 3)
        self.time_embedding = TimestepEmbedding(top.channels, config.time_channels, layers)
        self.add_embedding = TimestepEmbedding(
            config.projection_class_embeddings_input_dim, config.time_channels, layers
        )

        skip_channels = [top.channels]
        down_blocks = []
        channels = top.channels
        for level in levels:
            downsample = level is not bottom
            down_blocks.append(
                DownBlock3D(
                    channels, level, layers, depth=config.layers_per_block, downsample=downsample
                )
            )
            channels = level.channels
            skip_channels += [channels] * (config.layers_per_block + downsample)
        self.down_blocks = nnx.List(down_blocks)

        self.mid_block = UNetMidBlock3DCrossAttn(bottom, layers)

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
        """Keys and values of the text embeddings `[batch, tokens, cross_attention_dim]`."""
        text = encoder_hidden_states.astype(self.dtype)
        return ProjectedText(
            down_blocks=[block.project_text(text) for block in self.down_blocks],
            mid_block=self.mid_block.project_text(text),
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
    ) -> jax.Array:
        """Predicts the noise (or velocity, or sample) of noisy latents.

        Args:
            sample: `[batch, frames, height, width, in_channels]`.
            timestep: `[batch]` or a scalar, in the training schedule's steps.
            encoder_hidden_states: text embeddings `[batch, tokens, cross_attention_dim]`, or what
                `project_text` made of them.
            text_embeds: pooled text `[batch, text_channels]`.
            time_ids: original size, crop offset, target size in pixels, `[batch, 6]`.
            enable_temporal_attentions: false for single images.
            residuals: what a ControlNet adds.

        Returns:
            `[batch, frames, height, width, out_channels]` in the compute dtype.
        """
        text = (
            encoder_hidden_states
            if isinstance(encoder_hidden_states, ProjectedText)
            else self.project_text(encoder_hidden_states)
        )
        time_embedding = embed_time_and_sizes(
            timestep, text_embeds, time_ids, self.config, self.time_embedding, self.add_embedding
        )

        x = self.conv_in(sample)
        skips = [x]
        for block, block_text in zip(self.down_blocks, text.down_blocks, strict=True):
            x, block_skips = block(
                x,
                time_embedding,
                block_text,
                enable_temporal_attentions=enable_temporal_attentions,
            )
            skips += block_skips

        x = self.mid_block(x, time_embedding, text.mid_block)
        if residuals is not None:
            skips = [
                skip + residual.astype(skip.dtype)
                for skip, residual in zip(skips, residuals.down_blocks, strict=True)
            ]
            x = x + residuals.mid_block.astype(x.dtype)

        for up_block, block_text in zip(self.up_blocks, text.up_blocks, strict=True):
            taken = [skips.pop() for _ in range(len(up_block.resnets))]
            x = up_block(
                x,
                time_embedding,
                block_text,
                taken,
                size=(skips[-1].shape[-3], skips[-1].shape[-2]) if skips else None,
                enable_temporal_attentions=enable_temporal_attentions,
            )

        return self.conv_out(jax.nn.silu(self.conv_norm_out(x)))
