"""Adding the product of two narrow matrices to a large one: product, sum and cast in one program.

A LoRA consists of such products, one for each of hundreds of matrices. Done step by step in NumPy
each takes four passes over arrays of the matrix's size, which are memory that is new to the process
every time; XLA makes one call of it, with nothing of that size but its result.
"""

import dataclasses
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


@dataclasses.dataclass(frozen=True)
class Factors:
    """Two narrow matrices whose product is to be added, as a LoRA's file holds them.

    Attributes:
        up: `[out, rank]`.
        down: `[rank, in ...]`, later axes as one.
        strengths: `[rank]`, float32, of each column of `up`.
    """

    up: np.ndarray
    down: np.ndarray
    strengths: np.ndarray


def joined_factors(changes: Sequence[tuple[Change, float]]) -> Factors | None:
    """Changes of one weight as a single product.

    Args:
        changes: changes and strengths.

    Returns:
        Factors in which the ranks of several changes are beside each other; None where a change is
        no product of two matrices.
    """
    ups, downs, strengths = [], [], []
    for change, scale in changes:
        product = change.difference if isinstance(change, Added) else None
        if not isinstance(product, LowRank) or product.mid is not None:
            return None
        ups.append(product.up.reshape(len(product.up), -1))
        downs.append(product.down.reshape(len(product.down), -1))
        strengths.append(np.full(len(product.down), product.scaling * scale, np.float32))
    return Factors(_joined(ups, 1), _joined(downs, 0), _joined(strengths, 0))


def add_product(weight: np.ndarray, factors: Factors, dtype: Any) -> np.ndarray | None:
    """The weight and the product of the factors, computed in float32 and rounded once.

    Args:
        weight: `[out, in ...]`, of any floating-point type, in any order.
        factors: of a product of the weight's size.
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
    rank = len(factors.strengths)
    missing = max(_LEAST_RANK, 1 << (rank - 1).bit_length()) - rank
    up, down, strengths = factors.up, factors.down, factors.strengths
    if missing:
        up, down = np.pad(up, ((0, 0), (0, missing))), np.pad(down, ((0, missing), (0, 0)))
        strengths = np.pad(strengths, (0, missing))
    given = jax.device_put((matrix.T if flipped else matrix, up, down, strengths), device)
    merged = np.asarray(_program(np.dtype(dtype), flipped)(*given))
    return (merged.T if flipped else merged).reshape(weight.shape)


def _joined(parts: Sequence[np.ndarray], axis: int) -> np.ndarray:
    if len(parts) == 1:
        return parts[0]
    if len({part.dtype for part in parts}) > 1:
        parts = [part.astype(np.float32) for part in parts]
    return np.concatenate(parts, axis)


@functools.cache
def _program(dtype: np.dtype[Any], flipped: bool) -> Any:
    def merged(matrix: jax.Array, up: jax.Array, down: jax.Array, strengths: jax.Array) -> Any:
        up, down = up.astype(jnp.float32) * strengths, down.astype(jnp.float32)
        factors = (down.T, up.T) if flipped else (up, down)
        product = jnp.dot(*factors, precision=jax.lax.Precision.HIGHEST)
        return (matrix.astype(jnp.float32) + product).astype(dtype)

    return jax.jit(merged)
