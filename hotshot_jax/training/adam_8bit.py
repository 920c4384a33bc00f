"""Adam whose moments take one byte each.

Dettmers et al. 2021, "8-bit Optimizers via Block-wise Quantization" (arXiv:2110.02861): each block
of values is divided by its largest magnitude and stored as the nearest of 256 numbers that lie
denser towards zero. Blocks lie along the last axis, so that moments are sharded as their parameters
are. Small parameters keep float32 moments, as in the paper's implementation.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

_BLOCK = 256
_SMALLEST = 4096


class Quantised(NamedTuple):
    """An array in blocks of one byte a value.

    Attributes:
        codes: uint8, the array's shape.
        scales: float32 `[..., blocks]`, the largest magnitude of each block.
    """

    codes: jax.Array
    scales: jax.Array


class Adam8bitState(NamedTuple):
    """Updates done, and the moments: a `Quantised` or, for small parameters, an array each."""

    updates: jax.Array
    first: Any
    second: Any


@functools.cache
def dynamic_map(signed: bool) -> np.ndarray:
    """The 256 numbers of the paper's dynamic tree quantisation (section 1.3), sorted, float32.

    The place of the first set bit tells the power of ten, the bits after it a linear fraction.
    """
    values = [0.0, 1.0]
    levels = 7
    for level in range(levels):
        # Without a sign there is one more bit for the fraction.
        count = 2**level if signed else 2 ** (level + 1)
        edges = np.linspace(0.1, 1, count + 1)
        middles = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (level - levels + 1)
        values += [*middles, *(-middles if signed else [])]
    # A smallest pair fills the table to 256 entries.
    values += [0.0] * (256 - len(values))
    return np.sort(np.asarray(values, np.float32))


def quantise(x: jax.Array, *, signed: bool) -> Quantised:
    """Stores float32 `[..., n]` in blocks along the last axis."""
    block = int(np.gcd(x.shape[-1], _BLOCK))
    blocks = x.reshape(*x.shape[:-1], -1, block)
    scales = jnp.abs(blocks).max(-1)
    unit = blocks / jnp.where(scales == 0, 1, scales)[..., None]
    table = dynamic_map(signed)
    codes = jnp.searchsorted(jnp.asarray((table[1:] + table[:-1]) / 2), unit)
    return Quantised(codes.astype(jnp.uint8).reshape(x.shape), scales)


def dequantise(stored: Quantised, *, signed: bool) -> jax.Array:
    """The float32 array that `quantise` stored."""
    blocks = stored.codes.reshape(*stored.scales.shape, -1)
    values = jnp.asarray(dynamic_map(signed))[blocks.astype(jnp.int32)]
    return (values * stored.scales[..., None]).reshape(stored.codes.shape)


def scale_by_adam_8bit(b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """`optax.scale_by_adam` with moments of 8 bits.

    Args:
        b1: decay of the first moment.
        b2: decay of the second moment.
        eps: added to the root of the second moment.
    """

    def init(params: Any) -> Adam8bitState:
        return Adam8bitState(
            jnp.zeros((), jnp.int32),
            jax.tree.map(lambda p: _store(jnp.zeros_like(p, jnp.float32), signed=True), params),
            jax.tree.map(lambda p: _store(jnp.zeros_like(p, jnp.float32), signed=False), params),
        )

    def update(updates: Any, state: Adam8bitState, params: Any = None) -> tuple[Any, Adam8bitState]:
        count = optax.safe_increment(state.updates)
        first_bias, second_bias = 1 - b1**count, 1 - b2**count

        def advance(gradient: jax.Array, first: Any, second: Any) -> tuple[Any, Any, Any]:
            first = b1 * _read(first, signed=True) + (1 - b1) * gradient
            second = b2 * _read(second, signed=False) + (1 - b2) * gradient**2
            step = first / first_bias / (jnp.sqrt(second / second_bias) + eps)
            return step, _store(first, signed=True), _store(second, signed=False)

        leaves, tree = jax.tree.flatten(updates)
        structure: Any = tree
        firsts = structure.flatten_up_to(state.first)
        seconds = structure.flatten_up_to(state.second)
        results = [advance(*each) for each in zip(leaves, firsts, seconds, strict=True)]
        steps, firsts, seconds = (structure.unflatten(part) for part in zip(*results, strict=True))
        return steps, Adam8bitState(count, firsts, seconds)

    return optax.GradientTransformation(init, update)


def _store(x: jax.Array, *, signed: bool) -> Any:
    return quantise(x, signed=signed) if x.size >= _SMALLEST else x


def _read(stored: Any, *, signed: bool) -> jax.Array:
    return dequantise(stored, signed=signed) if isinstance(stored, Quantised) else stored
