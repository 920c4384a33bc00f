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

from hotshot_jax.convert.tensors.half_casts import host_device
from hotshot_jax.lora.changes import Added, Change, LowRank

# Below this many values, compiling a program takes longer than NumPy takes for a few hundred.
_SMALLEST = 1 << 16
# Ranks are filled up with zeros to powers of two from here on, so that few programs are compiled
# for a file with a rank of its own for every matrix.
_LEAST_RANK = 16


def joined_factors(
    changes: Sequence[tuple[Change, float]],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Changes of one weight as a single product of two narrow matrices.

    Args:
        changes: changes and strengths.

    Returns:
        `[out, rank]` and `[rank, in ...]` (later axes as one), float32, strengths multiplied in and
        the ranks of several changes beside each other; None where a change is no such product.
    """
    ups, downs = [], []
    for change, scale in changes:
        product = change.difference if isinstance(change, Added) else None
        if not isinstance(product, LowRank) or product.mid is not None:
            return None
        up, down = (np.asarray(each, np.float32) for each in (product.up, product.down))
        ups.append(up.reshape(len(up), -1) * np.float32(product.scaling * scale))
        downs.append(down.reshape(len(down), -1))
    return np.concatenate(ups, 1), np.concatenate(downs, 0)


def add_product(
    weight: np.ndarray, factors: tuple[np.ndarray, np.ndarray], dtype: Any
) -> np.ndarray | None:
    """The weight and the product of two matrices, computed in float32 and rounded once.

    Args:
        weight: `[out, in ...]`, of any floating-point type, in any order.
        factors: `[out, rank]` and `[rank, in ...]` (later axes as one), float32.
        dtype: of the result.

    Returns:
        An array of the weight's shape that may be read-only; None where NumPy is to do it: for
        small weights, and where no program can run on the host.
    """
    device = host_device()
    if weight.size < _SMALLEST or device is None:
        return None
    matrix = weight.reshape(len(weight), -1)
    # Parameters of a model seen in PyTorch's layout: in their own order nothing is moved.
    flipped = matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    up, down = factors
    rank = len(down)
    missing = max(_LEAST_RANK, 1 << (rank - 1).bit_length()) - rank
    if missing:
        up, down = np.pad(up, ((0, 0), (0, missing))), np.pad(down, ((0, missing), (0, 0)))
    operands = (matrix.T, down.T, up.T) if flipped else (matrix, up, down)
    merged = np.asarray(_program(np.dtype(dtype))(*jax.device_put(operands, device)))
    return (merged.T if flipped else merged).reshape(weight.shape)


@functools.cache
def _program(dtype: np.dtype[Any]) -> Any:
    # The factors come as float32: casts and strengths in here would double the time to compile.
    def merged(matrix: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
        product = jnp.dot(left, right, precision=jax.lax.Precision.HIGHEST)
        return (matrix.astype(jnp.float32) + product).astype(dtype)

    return jax.jit(merged)
