"""Scaled dot-product attention and the attention layer of all transformers here."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx

from hotshot_jax.models.layers.attention_choice import (
    CUDNN,
    HEAD_SUMS,
    LATE_DIVISION,
    SPLASH,
    Accelerator,
    choose_attention,
    frames_stay_apart,
)
from hotshot_jax.models.layers.flash_attention import cudnn_attention, splash_attention
from hotshot_jax.models.layers.kept_for_gradients import keep_inputs_only
from hotshot_jax.models.layers.late_division import late_division_attention
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.narrow_attention import head_sums_attention

AttentionFunction = Callable[..., jax.Array]
"""Called like `dot_product_attention`, and gives what it gives."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Context:
    """What a cross-attention reads: keys and values projected from the tokens of a text or picture.

    For a stack of blocks every array has a leading axis `[depth]`.

    Attributes:
        key: `[batch, frames, tokens, heads, channels / heads]`; one frame where all share it.
        value: like `key`.
        weight: factor of what is read, `[batch, frames]`, either of which may be 1; None for 1.
    """

    key: jax.Array
    value: jax.Array
    weight: jax.Array | None = None


Contexts = list[Context]
"""What one cross-attention reads; the results are added up."""


def dot_product_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool = False
) -> jax.Array:
    """Scaled dot-product attention (https://arxiv.org/abs/1706.03762, equation 1).

    Logits and softmax are float32. `choose_attention` picks the program.

    Args:
        query: `[..., queries, heads, channels]`.
        key: `[..., keys, heads, channels]`, with the same leading axes.
        value: like `key`.
        causal: a query sees only the keys up to its own position.

    Returns:
        `[..., queries, heads, channels]` in the dtype of `value`.
    """
    accelerator = Accelerator.current()
    chosen = choose_attention(accelerator, query.shape, key.shape, query.dtype, causal=causal)
    if chosen == SPLASH:
        return splash_attention(query, key, value)
    if chosen == CUDNN:
        return cudnn_attention(query, key, value)
    if chosen == HEAD_SUMS:
        return keep_inputs_only(head_sums_attention, query, key, value)
    if chosen == LATE_DIVISION:
        return keep_inputs_only(late_division_attention, query, key, value)
    return keep_inputs_only(functools.partial(_xla_attention, causal=causal), query, key, value)


def _xla_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, causal: bool
) -> jax.Array:
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum("...qhc,...khc->...hqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * scale
    if causal:
        queries, keys = logits.shape[-2:]
        visible = jnp.arange(keys) <= jnp.arange(queries)[:, None]
        logits = jnp.where(visible, logits, -jnp.inf)
    weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
    return jnp.einsum("...hqk,...khc->...qhc", weights, value)


class Attention(nnx.Module):
    """Multi-head attention with the parameter names of diffusers' `Attention`."""

    def __init__(
        self,
        channels: int,
        heads: int,
        layers: Layers,
        *,
        context_channels: int | None = None,
        use_bias: bool = False,
    ):
        context_channels = channels if context_channels is None else context_channels
        self.heads = heads
        self.attend: AttentionFunction = dot_product_attention
        self.to_q = layers.linear(channels, channels, use_bias=use_bias)
        self.to_k = layers.linear(context_channels, channels, use_bias=use_bias)
        self.to_v = layers.linear(context_channels, channels, use_bias=use_bias)
        self.to_out = nnx.List([layers.linear(channels, channels)])

    def project_query(self, x: jax.Array) -> jax.Array:
        """Maps `[..., tokens, channels]` to `[..., tokens, heads, channels / heads]`."""
        return self._split_heads(self.to_q(x))

    def project_context(self, tokens: jax.Array) -> Context:
        """Keys and values of `[..., tokens, context_channels]`, each split into heads."""
        return Context(self._split_heads(self.to_k(tokens)), self._split_heads(self.to_v(tokens)))

    def project_out(self, x: jax.Array) -> jax.Array:
        """Merges the heads of `[..., tokens, heads, channels / heads]` and maps them out."""
        return self.to_out[0](x.reshape(*x.shape[:-2], -1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Attends within `[..., tokens, channels]`; same shape."""
        context = self.project_context(x)
        return self.project_out(self.attend(self.project_query(x), context.key, context.value))

    def read(self, x: jax.Array, contexts: Contexts) -> jax.Array:
        """Attends from `[batch, frames, pixels, channels]` to contexts; same shape."""
        queries = self.project_query(x)
        parts = [self._read_one(queries, context) for context in contexts]
        return self.project_out(sum(parts[1:], start=parts[0]))

    def _read_one(self, queries: jax.Array, context: Context) -> jax.Array:
        frames, key, value = queries.shape[1], context.key, context.value
        shared = key.shape[1] == 1
        if shared and not frames_stay_apart(Accelerator.current(), queries.dtype):
            # Frames that share a context are just more queries on it.
            merged = rearrange(queries, "b f p h c -> b (f p) h c")
            read = self.attend(merged, key[:, 0], value[:, 0])
            read = rearrange(read, "b (f p) h c -> b f p h c", f=frames)
        else:
            key, value = (
                jnp.broadcast_to(each, (each.shape[0], frames, *each.shape[2:]))
                for each in (key, value)
            )
            read = self.attend(queries, key, value)
        if context.weight is None:
            return read
        return read * context.weight[..., None, None, None].astype(read.dtype)

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)


def replace_attention(model: nnx.Module, attend: AttentionFunction) -> None:
    """Makes every attention of a model use another function; changes the model.

    Args:
        model: a UNet, ControlNet, text encoder or VAE.
        attend: called like `dot_product_attention`, with `causal=True` in text encoders alone.
    """
    for _, part in nnx.iter_modules(model):
        if hasattr(part, "attend"):
            part.attend = attend
