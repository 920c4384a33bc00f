"""Scaled dot-product attention and the attention layer of all transformers here."""

import jax
import jax.numpy as jnp
from flax import nnx

from hotshot_jax.models.attention_choice import CUDNN, SPLASH, Accelerator, choose_attention
from hotshot_jax.models.flash_attention import cudnn_attention, splash_attention
from hotshot_jax.models.layers import Layers

KeyValue = tuple[jax.Array, jax.Array]


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
    return _xla_attention(query, key, value, causal=causal)


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
        self.to_q = layers.linear(channels, channels, use_bias=use_bias)
        self.to_k = layers.linear(context_channels, channels, use_bias=use_bias)
        self.to_v = layers.linear(context_channels, channels, use_bias=use_bias)
        self.to_out = nnx.List([layers.linear(channels, channels)])

    def project_query(self, x: jax.Array) -> jax.Array:
        """Maps `[..., tokens, channels]` to `[..., tokens, heads, channels / heads]`."""
        return self._split_heads(self.to_q(x))

    def project_context(self, context: jax.Array) -> KeyValue:
        """Keys and values of `[..., tokens, context_channels]`, each split into heads."""
        return self._split_heads(self.to_k(context)), self._split_heads(self.to_v(context))

    def project_out(self, x: jax.Array) -> jax.Array:
        """Merges the heads of `[..., tokens, heads, channels / heads]` and maps them out."""
        return self.to_out[0](x.reshape(*x.shape[:-2], -1))

    def __call__(self, x: jax.Array, key_value: KeyValue | None = None) -> jax.Array:
        """Attends from `[..., tokens, channels]` to itself, or to projected keys and values."""
        key, value = self.project_context(x) if key_value is None else key_value
        return self.project_out(dot_product_attention(self.project_query(x), key, value))

    def _split_heads(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:-1], self.heads, -1)
