"""PyTorch's layouts and ours."""

import jax
import jax.numpy as jnp
import numpy as np


def channels_last(x: np.ndarray) -> jax.Array:
    """`[batch, channels, ...]` as `[batch, ..., channels]`."""
    return jnp.asarray(np.moveaxis(x, 1, -1))


def channels_first(x: jax.Array | np.ndarray) -> np.ndarray:
    """`[batch, ..., channels]` as `[batch, channels, ...]`."""
    return np.moveaxis(np.asarray(x), -1, 1)
