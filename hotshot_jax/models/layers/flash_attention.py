"""Attention by kernels that never write the logits: cuDNN's, and JAX's own for TPUs.

Both are of the kind of https://arxiv.org/abs/2205.14135.
"""

import jax
import jax.numpy as jnp

from hotshot_jax.models.layers.sharding_points import images_and_heads

_LANES = 128
# Of the tokens that a kernel holds at once: all of these fit into the memory of every TPU's core.
_MOST_QUERIES = 512
_MOST_KEYS = 1024


def cudnn_attention(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention of `[batch, frames, tokens, heads, channels]` by cuDNN, on NVIDIA GPUs."""

    def attend(*arrays: jax.Array) -> jax.Array:
        merged = (x.reshape(-1, *x.shape[2:]) for x in arrays)
        attended = jax.nn.dot_product_attention(*merged, implementation="cudnn")
        return attended.reshape(arrays[0].shape)

    return images_and_heads(attend, query, key, value)


def splash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, interpret: bool = False
) -> jax.Array:
    """Attention by JAX's "splash" kernel, on TPUs; the way back is a kernel too.

    Args:
        query: `[batch, frames, tokens, heads, channels]`.
        key: `[batch, frames, keys, heads, channels]`.
        value: like `key`.
        interpret: run the kernel's operations one by one, on any device.

    Returns:
        Like `query`.
    """

    def attend(*arrays: jax.Array) -> jax.Array:
        return _splash_attention(*arrays, interpret=interpret)

    return images_and_heads(attend, query, key, value)


def _splash_attention(
    query: jax.Array, key: jax.Array, value: jax.Array, *, interpret: bool
) -> jax.Array:
    # Only now: importing Pallas takes a second, which nothing but a TPU program needs.
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel,
        splash_attention_mask,
    )

    shape = query.shape
    tokens, keys, heads = shape[2], key.shape[2], shape[3]
    query, key, value = (_arranged(x) for x in (query * shape[-1] ** -0.5, key, value))
    padded_tokens, padded_keys = query.shape[2], key.shape[2]
    segments = None
    if (padded_tokens, padded_keys) != (tokens, keys):
        # Padding is a segment of its own: tokens attend only within their segment.
        segments = splash_attention_kernel.SegmentIds(
            jnp.asarray(jnp.arange(padded_tokens) >= tokens, jnp.int32),
            jnp.asarray(jnp.arange(padded_keys) >= keys, jnp.int32),
        )
    queries_at_once = _block(padded_tokens, _MOST_QUERIES)
    keys_at_once = _block(padded_keys, _MOST_KEYS)
    multiplied_at_once = _block(keys_at_once, _MOST_QUERIES)
    everything = splash_attention_mask.FullMask((padded_tokens, padded_keys))
    kernel = splash_attention_kernel.make_splash_mha(
        splash_attention_mask.MultiHeadMask([everything] * heads),
        head_shards=1,
        q_seq_shards=1,
        interpret=interpret,
        block_sizes=splash_attention_kernel.BlockSizes(
            block_q=queries_at_once,
            block_kv=keys_at_once,
            block_kv_compute=multiplied_at_once,
            block_q_dkv=queries_at_once,
            block_kv_dkv=keys_at_once,
            block_kv_dkv_compute=multiplied_at_once,
            use_fused_bwd_kernel=True,
        ),
    )
    attended = jax.vmap(lambda *image: kernel(*image, segment_ids=segments))(query, key, value)
    return attended[:, :, :tokens].swapaxes(1, 2).reshape(shape)


def _arranged(x: jax.Array) -> jax.Array:
    """`[batch, frames, tokens, heads, channels]` as `[images, heads, padded tokens, channels]`."""
    x = x.reshape(-1, *x.shape[2:]).swapaxes(1, 2)
    return jnp.pad(x, ((0, 0), (0, 0), (0, -x.shape[2] % _LANES), (0, 0)))


def _block(tokens: int, most: int) -> int:
    """The largest divisor of `tokens` up to `most` that is a multiple of the lanes."""
    return max(size for size in range(_LANES, most + 1, _LANES) if tokens % size == 0)
