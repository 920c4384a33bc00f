"""The way down that UNet and ControlNet share: embeddings, `conv_in`, down blocks, mid block."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.embeddings import TimestepEmbedding, sinusoidal_embedding
from hotshot_jax.models.encoder_config import EncoderConfig
from hotshot_jax.models.layers import Layers
from hotshot_jax.models.unet_blocks import DownBlock3D, TextKeyValues, UNetMidBlock3DCrossAttn


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ProjectedText:
    """Keys and values of the text for every spatial transformer.

    They depend on neither timestep nor frame, so one projection serves a whole sampling run.

    Attributes:
        down_blocks: for each block, for each of its transformers, keys and values, each
            `[depth, batch, tokens, heads, channels / heads]`.
        mid_block: the same for the mid block.
        up_blocks: the same for the up blocks; empty for a ControlNet.
    """

    down_blocks: list[TextKeyValues]
    mid_block: TextKeyValues
    up_blocks: list[TextKeyValues]


class Encoder(nnx.Module):
    """Base of UNet and ControlNet, which have these modules under the same names.

    Args:
        config: shape of the way down.
        layers: makes the leaf layers.
        pool_frames: whether the resnets' group statistics pool over frames.
        temporal: whether the down blocks have temporal transformers.
        mid_cross_attention: whether the mid block has a spatial transformer.
    """

    def __init__(
        self,
        config: EncoderConfig,
        layers: Layers,
        *,
        pool_frames: bool,
        temporal: bool,
        mid_cross_attention: bool = True,
    ):
        levels = config.levels(pool_frames=pool_frames)
        top, bottom = levels[0], levels[-1]
        self.config = config
        self.dtype: Any = layers.dtype

        self.conv_in = layers.conv(config.in_channels, top.channels, 3)
        self.time_embedding = TimestepEmbedding(top.channels, config.time_channels, layers)
        self.add_embedding = TimestepEmbedding(
            config.projection_class_embeddings_input_dim, config.time_channels, layers
        )
        inputs = [top.channels, *config.block_out_channels]
        self.down_blocks = nnx.List(
            [
                DownBlock3D(
                    channels,
                    level,
                    layers,
                    depth=config.layers_per_block,
                    downsample=level is not bottom,
                    temporal=temporal,
                )
                for channels, level in zip(inputs, levels, strict=False)
            ]
        )
        self.mid_block = UNetMidBlock3DCrossAttn(
            bottom, layers, cross_attention=mid_cross_attention
        )

    def project_text(self, encoder_hidden_states: jax.Array) -> ProjectedText:
        """Keys and values of the text embeddings `[batch, tokens, cross_attention_dim]`."""
        text = encoder_hidden_states.astype(self.dtype)
        return ProjectedText(
            down_blocks=[block.project_text(text) for block in self.down_blocks],
            mid_block=self.mid_block.project_text(text),
            up_blocks=[],
        )

    def embed_time_and_sizes(
        self, timestep: jax.Array, pooled_text: jax.Array, time_ids: jax.Array
    ) -> jax.Array:
        """The time embedding, with pooled text and sizes added (SDXL, section 2.2).

        Args:
            timestep: `[batch]` or a scalar.
            pooled_text: `[batch, text_channels]`.
            time_ids: original size, crop offset and target size, `[batch, 6]`, in pixels.

        Returns:
            `[batch, time_channels]`.
        """
        batch = pooled_text.shape[0]
        config = self.config
        timestep = jnp.broadcast_to(timestep, (batch,))
        time = self.time_embedding(sinusoidal_embedding(timestep, config.block_out_channels[0]))
        sizes = sinusoidal_embedding(time_ids, config.addition_time_embed_dim).reshape(batch, -1)
        added = jnp.concatenate([pooled_text.astype(jnp.float32), sizes], axis=-1)
        return time + self.add_embedding(added)

    def encode(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        text: ProjectedText,
        *,
        enable_temporal_attentions: bool = True,
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Runs the down blocks and the mid block.

        Args:
            x: output of `conv_in`, `[batch, frames, height, width, channels]`.
            time_embedding: `[batch, time_channels]`.
            text: the result of `project_text`.
            enable_temporal_attentions: whether the temporal transformers run.

        Returns:
            The mid block's output, and the skips: `x`, then each layer's output and each
            downsampler's.
        """
        skips = [x]
        for block, block_text in zip(self.down_blocks, text.down_blocks, strict=True):
            x, block_skips = block(
                x,
                time_embedding,
                block_text,
                enable_temporal_attentions=enable_temporal_attentions,
            )
            skips += block_skips
        return self.mid_block(x, time_embedding, text.mid_block), skips
