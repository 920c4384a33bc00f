"""Attention of few tokens by heads that are narrower than a TPU's tiles."""

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.models.layers.sharding_points import images_and_heads


def head_sums_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention that keeps the channels of all heads side by side.

    Arrays `[..., 8, 8]` of logits and `[..., 40]` of heads take up to 16 times their place in tiles
    of 8 x 128. Here queries are multiplied with each key channel by channel, and a product with a
    0/1 matrix adds up the channels of each head; its transpose spreads the weights out again. Many
    more operations than attention needs, of which the matrix unit has plenty to spare.

    Args:
        query: `[batch, pixels, queries, heads, channels]`.
        key: `[batch, pixels, keys, heads, channels]`.
        value: like `key`.

    Returns:
        Like `query`. Logits and softmax are float32, products of channels in the dtype of `query`.
    """
    # Left to itself, the compiler divides channels that belong together, and sends them.
    return images_and_heads(_attend, query, key, value)


def _attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    heads, channels = query.shape[-2:]
    of_head = jnp.asarray(np.repeat(np.eye(heads), channels, axis=0), query.dtype)
    queries, keys, values = (x.reshape(*x.shape[:-2], -1) for x in (query, key, value))
    products = queries[..., :, None, :] * keys[..., None, :, :]
    logits = jnp.einsum("...c,ch->...h", products, of_head, preferred_element_type=jnp.float32)
    weights = jax.nn.softmax(logits * channels**-0.5, axis=-2).astype(value.dtype)
    spread = jnp.einsum("...h,ch->...c", weights, of_head)
    read = (spread * values[..., None, :, :]).astype(jnp.float32).sum(-2)
    return read.astype(value.dtype).reshape(query.shape)
