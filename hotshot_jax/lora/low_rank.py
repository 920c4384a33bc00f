"""Adding the product of two narrow matrices to a large one: product, sum and cast in one program.

A LoRA consists of such products, one for each of hundreds of matrices. Done step by step in NumPy
each takes four passes over arrays of the matrix's size, which are memory that is new to the process
every time; XLA makes one call of it, with nothing of that size but its result.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.convert.half_casts import host_device
from hotshot_jax.lora.changes import Added, Change, LowRank

# Below this many values, compiling a program takes longer than NumPy takes for a few hundred.
_SMALLEST = 1 << 16
# Ranks are filled up with zeros to powers of two from here on, so that few programs are compiled
# for a file with a rank of its own for every matrix.
_LEAST_RANK = 16


def joined_factors(
    changes: Sequence[tuple[Change, float]],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Changes of one weight as a single product, strengths included.

    Args:
        changes: changes and strengths.

    Returns:
        Float32 matrices `[out, ranks]` and `[ranks, in ...]`, where ranks of several changes are
        beside each other; None where a change is no product of two matrices.
    """
    ups, downs = [], []
    for change, scale in changes:
        product = change.difference if isinstance(change, Added) else None
        if not isinstance(product, LowRank) or product.mid is not None:
            return None
        up, down = (
            factor.reshape(len(factor), -1).astype(np.float32)
            for factor in (product.up, product.down)
        )
        ups.append(up * np.float32(product.scaling * scale))
        downs.append(down)
    return np.concatenate(ups, axis=1), np.concatenate(downs, axis=0)


def add_product(
    weight: np.ndarray, up: np.ndarray, down: np.ndarray, dtype: Any
) -> np.ndarray | None:
    """`weight + up @ down`, computed in float32 and rounded once.

    Args:
        weight: `[out, in ...]`, of any floating-point type, in any order.
        up: `[out, rank]`, float32.
        down: `[rank, in ...]`, float32, later axes as one.
        dtype: of the result.

    Returns:
        An array of the weight's shape that may be read-only; None where NumPy is to do it: for
        small weights, and where no program can run on the host.
    """
    device = host_device()
    if weight.size < _SMALLEST or device is None:
        return None
    matrix = weight.reshape(len(weight), -1)
    if matrix.flags.f_contiguous and not matrix.flags.c_contiguous:
        # Parameters of a model seen in PyTorch's layout: in their own order nothing is moved.
        merged = add_product(matrix.T, down.T, up.T, dtype)
        return None if merged is None else merged.T.reshape(weight.shape)
    missing = max(_LEAST_RANK, 1 << (up.shape[1] - 1).bit_length()) - up.shape[1]
    factors = np.pad(up, ((0, 0), (0, missing))), np.pad(down, ((0, missing), (0, 0)))
    given = [jax.device_put(each, device) for each in (matrix, *factors)]
    return np.asarray(_program(np.dtype(dtype))(*given)).reshape(weight.shape)


@functools.cache
def _program(dtype: np.dtype[Any]) -> Any:
    def merged(matrix: jax.Array, up: jax.Array, down: jax.Array) -> jax.Array:
        product = jnp.dot(up, down, precision=jax.lax.Precision.HIGHEST)
        return (matrix.astype(jnp.float32) + product).astype(dtype)

    return jax.jit(merged)
