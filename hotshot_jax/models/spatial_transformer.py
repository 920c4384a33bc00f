"""SDXL's spatial transformer: attention within a frame, and from a frame to the text."""

import jax
from einops import rearrange
from flax import nnx

from hotshot_jax.models.attention import Attention, KeyValue, dot_product_attention
from hotshot_jax.models.feed_forward import FeedForward
from hotshot_jax.models.layers import Layers
from hotshot_jax.models.sharding_points import split_videos


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each pre-norm with a residual."""

    def __init__(self, channels: int, heads: int, text_channels: int, layers: Layers):
        self.norm1 = layers.layer_norm(channels)
        self.attn1 = Attention(channels, heads, layers)
        self.norm2 = layers.layer_norm(channels)
        self.attn2 = Attention(channels, heads, layers, context_channels=text_channels)
        self.norm3 = layers.layer_norm(channels)
        self.ff = FeedForward(channels, layers)

    def __call__(self, x: jax.Array, text: KeyValue) -> jax.Array:
        """Maps `[batch, frames, pixels, channels]` to the same shape.

        Args:
            x: the activations.
            text: keys and values of this block's cross-attention, each
                `[batch, tokens, heads, channels / heads]`.
        """
        x = x + self.attn1(self.norm1(x))
        x = x + self._attend_to_text(self.norm2(x), text)
        return x + self.ff(self.norm3(x))

    def _attend_to_text(self, x: jax.Array, text: KeyValue) -> jax.Array:
        # All frames of a video see the same text, so they are just more queries on it.
        frames = x.shape[1]
        query = self.attn2.project_query(rearrange(x, "b f p c -> b (f p) c"))
        attended = self.attn2.project_out(dot_product_attention(query, *text))
        return rearrange(attended, "b (f p) c -> b f p c", f=frames)


def _run_block(
    x: jax.Array, block_and_text: tuple[BasicTransformerBlock, KeyValue]
) -> tuple[jax.Array, None]:
    block, text = block_and_text
    return block(split_videos(x), text), None


class Transformer2DModel(nnx.Module):
    """Group norm, linear, a stack of transformer blocks, linear, plus the input."""

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: Layers,
        *,
        depth: int,
        text_channels: int,
        groups: int,
    ):
        self.norm = layers.group_norm(channels, groups, epsilon=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.transformer_blocks = layers.stack(
            depth, lambda layers: BasicTransformerBlock(channels, heads, text_channels, layers)
        )
        self.proj_out = layers.linear(channels, channels)

    def project_text(self, text: jax.Array) -> KeyValue:
        """Keys and values of all cross-attentions.

        They depend neither on the timestep nor on the frame: one call serves a whole sampling run.

        Args:
            text: `[batch, tokens, text_channels]`.

        Returns:
            Keys and values, each `[depth, batch, tokens, heads, channels / heads]`.
        """
        return jax.vmap(lambda block: block.attn2.project_context(text))(self.transformer_blocks)

    def __call__(self, x: jax.Array, text: KeyValue) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape.

        Args:
            x: the activations.
            text: the result of `project_text`.
        """
        height, width = x.shape[-3:-1]
        hidden = self.proj_in(rearrange(self.norm(x), "b f h w c -> b f (h w) c"))
        hidden, _ = jax.lax.scan(_run_block, hidden, (self.transformer_blocks, text))
        hidden = self.proj_out(hidden)
        return x + rearrange(hidden, "b f (h w) c -> b f h w c", h=height, w=width)
