"""Hotshot-XL's temporal transformer: attention over the frames at each pixel."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from hotshot_jax.models.layers.attention import Attention
from hotshot_jax.models.layers.embeddings import positional_encoding
from hotshot_jax.models.layers.feed_forward import FeedForward
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.sharding_points import frames_to_pixels, pixels_to_frames
from hotshot_jax.models.unet.encoder_config import TemporalShape


class TemporalAttention(Attention):
    """Self-attention over frames; positions are added to what becomes query, key and value."""

    def __init__(self, channels: int, shape: TemporalShape, layers: Layers):
        super().__init__(channels, shape.heads, layers)
        self.positions = shape.positions
        self.dtype = layers.dtype

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, frames, pixels, channels]` to the same shape."""
        frames, channels = x.shape[1], x.shape[-1]
        positions = positional_encoding(self.positions, channels)[:frames, None]
        x = x + jnp.asarray(positions, self.dtype)
        query, context = self.project_query(x), self.project_context(x)
        attended = self.attend(
            *(
                rearrange(each, "b f p h c -> b p f h c")
                for each in (query, context.key, context.value)
            )
        )
        return self.project_out(rearrange(attended, "b p f h c -> b f p h c"))


class TemporalTransformerBlock(nnx.Module):
    """Two attentions over frames and a feed-forward, each pre-norm with a residual."""

    def __init__(self, channels: int, shape: TemporalShape, layers: Layers):
        self.attention_blocks = nnx.List(
            [TemporalAttention(channels, shape, layers) for _ in range(2)]
        )
        self.norms = nnx.List([layers.layer_norm(channels) for _ in range(2)])
        self.ff = FeedForward(channels, layers)
        self.ff_norm = layers.layer_norm(channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, frames, pixels, channels]` to the same shape."""
        for attention, norm in zip(self.attention_blocks, self.norms, strict=True):
            x = x + attention(norm(x))
        return x + self.ff(self.ff_norm(x))


class TransformerTemporal(nnx.Module):
    """Group norm of each frame, linear, one block, linear, plus the input.

    The last layer starts at zero, so that new temporal layers change nothing.
    """

    def __init__(self, channels: int, shape: TemporalShape, layers: Layers):
        self.positions = shape.positions
        self.norm = layers.group_norm(channels, shape.groups, epsilon=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = nnx.List([TemporalTransformerBlock(channels, shape, layers)])
        self.proj_out = layers.linear(channels, channels, zero=True)

    def __call__(self, x: jax.Array, scale: jax.Array | None = None) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape.

        Args:
            x: the activations.
            scale: factor of what is added to them, `[batch, frames]`, one frame where all share
                it; None for 1.

        Raises:
            ValueError: there are more frames than positions.
        """
        frames, height, width = x.shape[1:4]
        if frames > self.positions:
            raise ValueError(
                f"{frames} frames, but the temporal layers know {self.positions} positions"
            )
        hidden = frames_to_pixels(rearrange(self.norm(x), "b f h w c -> b f (h w) c"))
        hidden = self.proj_in(hidden)
        for block in self.transformer_blocks:
            hidden = block(hidden)
        hidden = pixels_to_frames(self.proj_out(hidden), height * width)
        added = rearrange(hidden, "b f (h w) c -> b f h w c", h=height, w=width)
        if scale is not None:
            added = added * scale[..., None, None, None].astype(added.dtype)
        return x + added
