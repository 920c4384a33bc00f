"""Attention whose weights go through memory in bfloat16."""

import jax
import jax.numpy as jnp


def late_division_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention that divides by the sum of the weights after they have multiplied the values.

    What lies between the two products is written to a TPU's memory and read back. A softmax in
    between is float32 there, since its sum has to be known before it can be rounded; weights that
    are not yet divided are half the bytes, rounded just as closely.

    Args:
        query: `[..., queries, heads, channels]`.
        key: `[..., keys, heads, channels]`, with the same leading axes.
        value: like `key`.

    Returns:
        Like `query`. Logits, exponentials and their sums are float32, weights in the dtype of
        `value`.
    """
    logits = jnp.einsum("...qhc,...khc->...hqk", query, key, preferred_element_type=jnp.float32)
    logits = logits * query.shape[-1] ** -0.5
    exponentials = jnp.exp(logits - jax.lax.stop_gradient(logits.max(-1, keepdims=True)))
    # Left to itself, the compiler rounds within the second product, and float32 is written.
    weights, total = jax.lax.optimization_barrier(
        (exponentials.astype(value.dtype), exponentials.sum(-1))
    )
    read = jnp.einsum("...hqk,...khc->...qhc", weights, value, preferred_element_type=jnp.float32)
    return (read / jnp.swapaxes(total, -1, -2)[..., None]).astype(value.dtype)
