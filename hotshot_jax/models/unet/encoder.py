"""The way down that UNet and ControlNet share: embeddings, `conv_in`, down blocks, mid block."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import ArrayLike

from hotshot_jax.models.layers.attention import Context, Contexts
from hotshot_jax.models.layers.embeddings import TimestepEmbedding, sinusoidal_embedding
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.blocks import BlockContexts, DownBlock3D, UNetMidBlock3DCrossAttn
from hotshot_jax.models.unet.encoder_config import EncoderConfig, TemporalShape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ProjectedText:
    """What every spatial transformer reads.

    It does not depend on the timestep, so one projection serves a whole sampling run.

    Attributes:
        down_blocks: for each block, for each of its transformers, contexts whose arrays have a
            leading axis `[depth]`.
        mid_block: the same for the mid block.
        up_blocks: the same for the up blocks; empty for a ControlNet.
    """

    down_blocks: list[BlockContexts]
    mid_block: BlockContexts
    up_blocks: list[BlockContexts]

    def joined(self, other: "ProjectedText", weight: ArrayLike = 1.0) -> "ProjectedText":
        """What reads both, as image prompts want it.

        Args:
            other: projected by layers of the same shapes, from tokens of any number.
            weight: factor of what is read from it: a scalar, or `[batch, frames]`, either of which
                may be 1.
        """
        weights = jnp.atleast_2d(jnp.asarray(weight, jnp.float32))

        def join(ours: Contexts, theirs: Contexts) -> Contexts:
            return ours + [
                dataclasses.replace(
                    each,
                    weight=jnp.broadcast_to(weights, (each.key.shape[0], *weights.shape))
                    * (1.0 if each.weight is None else each.weight),
                )
                for each in theirs
            ]

        return jax.tree.map(join, self, other, is_leaf=_is_contexts)

    def blended(self, blend: Callable[..., jax.Array]) -> "ProjectedText":
        """What frames read that blend the texts of keys.

        Keys and values are linear in the text, so that they may be blended in its place.

        Args:
            blend: called with an array `[..., batch, keys, ...]` and `axis`, that of the keys.
        """

        def blend_all(contexts: Contexts) -> Contexts:
            return [
                dataclasses.replace(
                    each, key=blend(each.key, axis=2), value=blend(each.value, axis=2)
                )
                for each in contexts
            ]

        return jax.tree.map(blend_all, self, is_leaf=_is_contexts)

    def at_frames(self, indices: ArrayLike) -> "ProjectedText":
        """The part of some frames; what all frames share stays as it is.

        Args:
            indices: int `[frames]` or `[windows, frames]`, see `take_frames`.
        """
        return jax.tree.map(lambda array: take_frames(array, indices, axis=2), self)


def take_frames(array: jax.Array, indices: ArrayLike, *, axis: int) -> jax.Array:
    """The part of some frames of an array with an axis of frames, which is 1 where they share it.

    Args:
        array: `[..., batch, frames, ...]`.
        indices: int `[frames]`; or `[windows, frames]`, which makes a batch of windows: all those
            of the first row, then all of the next.
        axis: that of the frames.
    """
    indices = jnp.atleast_2d(jnp.asarray(indices))
    windows, frames = indices.shape
    if array.shape[axis] == 1:
        return array if windows == 1 else jnp.repeat(array, windows, axis=axis - 1)
    if windows == 1:
        return jnp.take(array, indices[0], axis=axis)
    before, batch, after = array.shape[: axis - 1], array.shape[axis - 1], array.shape[axis + 1 :]
    taken = jnp.take(array, indices, axis=axis)
    return taken.reshape(*before, batch * windows, frames, *after)


def _is_contexts(tree: Any) -> bool:
    return isinstance(tree, list) and all(isinstance(each, Context) for each in tree)


class Encoder(nnx.Module):
    """Base of UNet and ControlNet, which have these modules under the same names.

    Args:
        config: shape of the way down.
        layers: makes the leaf layers.
        temporal: shape of the temporal transformers; None without any.
        mid_cross_attention: whether the mid block has a spatial transformer.
    """

    def __init__(
        self,
        config: EncoderConfig,
        layers: Layers,
        *,
        temporal: TemporalShape | None = None,
        mid_cross_attention: bool = True,
    ):
        levels = config.levels(temporal)
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
                )
                for channels, level in zip(inputs, levels, strict=False)
            ]
        )
        self.mid_block = UNetMidBlock3DCrossAttn(
            bottom, layers, cross_attention=mid_cross_attention
        )

    def project_text(self, encoder_hidden_states: jax.Array) -> ProjectedText:
        """What the spatial transformers read of text embeddings.

        Args:
            encoder_hidden_states: `[batch, tokens, cross_attention_dim]` where all frames share
                them, or `[batch, frames, tokens, cross_attention_dim]`.
        """
        text = self._text_by_frame(encoder_hidden_states)
        return ProjectedText(
            down_blocks=[block.project_text(text) for block in self.down_blocks],
            mid_block=self.mid_block.project_text(text),
            up_blocks=[],
        )

    def _text_by_frame(self, encoder_hidden_states: jax.Array) -> jax.Array:
        text = encoder_hidden_states.astype(self.dtype)
        return text[:, None] if text.ndim == 3 else text

    def embed_time_and_sizes(
        self, timestep: jax.Array, pooled_text: jax.Array, time_ids: jax.Array
    ) -> jax.Array:
        """The time embedding, with pooled text and sizes added (SDXL, section 2.2).

        Args:
            timestep: `[batch]` or a scalar.
            pooled_text: `[batch, text_channels]` where all frames share it, or
                `[batch, frames, text_channels]`.
            time_ids: original size, crop offset and target size, `[batch, 6]`, in pixels.

        Returns:
            `[batch, frames, time_channels]`, one frame where all share it.
        """
        if pooled_text.ndim == 2:
            pooled_text = pooled_text[:, None]
        batch, frames = pooled_text.shape[:2]
        config = self.config
        timestep = jnp.broadcast_to(timestep, (batch,))
        time = self.time_embedding(sinusoidal_embedding(timestep, config.block_out_channels[0]))
        sizes = sinusoidal_embedding(time_ids, config.addition_time_embed_dim).reshape(batch, 1, -1)
        sizes = jnp.broadcast_to(sizes, (batch, frames, sizes.shape[-1]))
        added = jnp.concatenate([pooled_text.astype(jnp.float32), sizes], axis=-1)
        return time[:, None] + self.add_embedding(added)

    def encode(
        self,
        x: jax.Array,
        time_embedding: jax.Array,
        text: ProjectedText,
        *,
        enable_temporal_attentions: bool = True,
        motion_scales: Sequence[jax.Array | None] = (),
    ) -> tuple[jax.Array, list[jax.Array]]:
        """Runs the down blocks and the mid block.

        Args:
            x: output of `conv_in`, `[batch, frames, height, width, channels]`.
            time_embedding: `[batch, frames, time_channels]`; one frame where all share it.
            text: the result of `project_text`.
            enable_temporal_attentions: whether the temporal transformers run.
            motion_scales: for each down block the factor of what they add, `[batch, frames]`.

        Returns:
            The mid block's output, and the skips: `x`, then each layer's output and each
            downsampler's.
        """
        skips = [x]
        for index, block in enumerate(self.down_blocks):
            with jax.named_scope(f"down_blocks.{index}"):
                x, block_skips = block(
                    x,
                    time_embedding,
                    text.down_blocks[index],
                    enable_temporal_attentions=enable_temporal_attentions,
                    motion_scale=motion_scales[index] if motion_scales else None,
                )
            skips += block_skips
        with jax.named_scope("mid_block"):
            return self.mid_block(x, time_embedding, text.mid_block), skips
