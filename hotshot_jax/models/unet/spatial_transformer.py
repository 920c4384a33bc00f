"""SDXL's spatial transformer: attention within a frame, and from a frame to the text."""

import functools

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from hotshot_jax.models.layers.attention import Attention, AttentionFunction, Contexts
from hotshot_jax.models.layers.feed_forward import FeedForward
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.sharding_points import split_videos


class BasicTransformerBlock(nnx.Module):
    """Self-attention, cross-attention and feed-forward, each pre-norm with a residual."""

    def __init__(self, channels: int, heads: int, text_channels: int, layers: Layers):
        self.norm1 = layers.layer_norm(channels)
        self.attn1 = Attention(channels, heads, layers)
        self.norm2 = layers.layer_norm(channels)
        self.attn2 = Attention(channels, heads, layers, context_channels=text_channels)
        self.norm3 = layers.layer_norm(channels)
        self.ff = FeedForward(channels, layers)

    def __call__(self, x: jax.Array, contexts: Contexts) -> jax.Array:
        """Maps `[batch, frames, pixels, channels]` to the same shape.

        Args:
            x: the activations.
            contexts: what this block's cross-attention reads.
        """
        with jax.named_scope("attn1"):
            x = x + self.attn1(self.norm1(x))
        with jax.named_scope("attn2"):
            x = x + self.attn2.read(self.norm2(x), contexts)
        with jax.named_scope("ff"):
            return x + self.ff(self.norm3(x))


def _run_block(
    x: jax.Array, block_and_contexts: tuple[BasicTransformerBlock, Contexts]
) -> tuple[jax.Array, None]:
    block, contexts = block_and_contexts
    return block(split_videos(x), contexts), None


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

    def project_text(self, text: jax.Array) -> Contexts:
        """What all cross-attentions read of a text, with a leading axis `[depth]`.

        It does not depend on the timestep: one call serves a whole sampling run.

        Args:
            text: `[batch, frames, tokens, text_channels]`; one frame where all share it.
        """
        project = jax.vmap(lambda block: block.attn2.project_context(text))
        return [project(self.transformer_blocks)]

    def __call__(self, x: jax.Array, contexts: Contexts) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape.

        Args:
            x: the activations.
            contexts: what the cross-attentions read, with a leading axis `[depth]`.
        """
        height, width = x.shape[-3:-1]
        hidden = self.proj_in(rearrange(self.norm(x), "b f h w c -> b f (h w) c"))
        hidden, _ = jax.lax.scan(_run_block, hidden, (self.transformer_blocks, contexts))
        hidden = self.proj_out(hidden)
        return x + rearrange(hidden, "b f (h w) c -> b f h w c", h=height, w=width)


class PointwiseTransformer2DModel(nnx.Module):
    """Group norm and two linear layers, plus the input: what is left at depth 0."""

    def __init__(self, channels: int, layers: Layers, *, groups: int):
        self.norm = layers.group_norm(channels, groups, epsilon=1e-6)
        self.proj_in = layers.linear(channels, channels)
        self.proj_out = layers.linear(channels, channels)

    def project_text(self, text: jax.Array) -> Contexts:
        """Nothing attends to the text."""
        del text
        return []

    def __call__(self, x: jax.Array, contexts: Contexts) -> jax.Array:
        """Maps `[batch, frames, height, width, channels]` to the same shape."""
        del contexts
        return x + self.proj_out(self.proj_in(self.norm(x)))


def attend_to_first_frame(model: nnx.Module) -> None:
    """Has every frame see the first one's keys and values beside its own; changes the model.

    As in Text2Video-Zero (https://arxiv.org/abs/2303.13439, section 3.4), where frames see the
    first one's alone, and in reference attention. Frames of a window see its own first one.

    Args:
        model: a UNet. Its spatial self-attentions are changed.
    """
    for _, part in nnx.iter_modules(model):
        if isinstance(part, BasicTransformerBlock):
            part.attn1.attend = functools.partial(_with_first_frame, part.attn1.attend)


def _with_first_frame(
    attend: AttentionFunction, query: jax.Array, key: jax.Array, value: jax.Array
) -> jax.Array:
    """Attends from `[batch, frames, pixels, heads, channels]`; same shape."""

    def both(own: jax.Array) -> jax.Array:
        return jnp.concatenate([own, jnp.broadcast_to(own[:, :1], own.shape)], axis=2)

    return attend(query, both(key), both(value))
