"""Sinusoidal embeddings of timesteps, sizes and frame positions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.models.layers.layers import Layers


def sinusoidal_embedding(values: jax.Array, channels: int) -> jax.Array:
    """Embeds numbers as `[cos, sin]` of geometrically spaced frequencies, in float32.

    The order and the frequencies are those of SDXL (`flip_sin_to_cos`, `freq_shift` 0):
    frequency i of n is 10000^(-i / n).

    Args:
        values: `[...]`.
        channels: even number of output channels.

    Returns:
        `[..., channels]`.
    """
    half = channels // 2
    exponents = -math.log(10000.0) * jnp.arange(half, dtype=jnp.float32) / half
    angles = values.astype(jnp.float32)[..., None] * jnp.exp(exponents)
    return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


def positional_encoding(positions: int, channels: int) -> np.ndarray:
    """The sinusoidal table of "Attention Is All You Need" (section 3.5), `[positions, channels]`.

    Sine on even and cosine on odd channels, float32. A constant: checkpoints carry it as a buffer,
    which conversion compares with this table.
    """
    position = np.arange(positions, dtype=np.float32)[:, None]
    exponents = np.arange(0, channels, 2, dtype=np.float32) * np.float32(
        -math.log(10000.0) / channels
    )
    angles = position * np.exp(exponents)
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(positions, channels)


class TimestepEmbedding(nnx.Module):
    """Two linear layers with SiLU between them."""

    def __init__(self, in_channels: int, channels: int, layers: Layers):
        self.linear_1 = layers.linear(in_channels, channels)
        self.linear_2 = layers.linear(channels, channels)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[batch, in_channels]` to `[batch, channels]`."""
        return self.linear_2(jax.nn.silu(self.linear_1(x)))
