"""What a LoRA file does to one weight, by method.

All arithmetic is float32 on the weights' own precision or better; a weight is changed by adding
the results of all changes to it, so that several files add up in any order.

References: LoRA https://arxiv.org/abs/2106.09685; LoHa https://arxiv.org/abs/2108.06098; LoKr and
the Tucker forms https://arxiv.org/abs/2309.14859 (LyCORIS); DoRA https://arxiv.org/abs/2402.09353.
"""

from __future__ import annotations

import dataclasses
from typing import Protocol

import numpy as np


class Change(Protocol):
    """A change of one weight, in PyTorch's layout."""

    def apply(self, weight: np.ndarray, scale: float) -> np.ndarray:
        """What to add to `weight` (float32) at the strength `scale`; float32, of its shape."""


class Delta(Protocol):
    """A change that does not depend on the weight."""

    def delta(self, shape: tuple[int, ...]) -> np.ndarray:
        """What to add at strength 1; float32, of the weight's `shape`.

        Raises:
            ValueError: the factors do not multiply to this shape.
        """


@dataclasses.dataclass(frozen=True)
class Added:
    """A `Delta`, at a strength."""

    difference: Delta

    def apply(self, weight: np.ndarray, scale: float) -> np.ndarray:
        """The difference times `scale`."""
        delta = self.difference.delta(weight.shape)
        return delta if scale == 1.0 else delta * np.float32(scale)


@dataclasses.dataclass(frozen=True)
class LowRank:
    """Two matrices, or two convolutions after another, or three (Tucker).

    Attributes:
        down: `[rank, in]` or `[rank, in, height, width]`.
        up: `[out, rank]` or `[out, rank, 1, 1]`.
        scaling: alpha / rank.
        mid: `[rank, rank, height, width]` between two 1 x 1 convolutions; None without.
    """

    down: np.ndarray
    up: np.ndarray
    scaling: float
    mid: np.ndarray | None = None

    def delta(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Delta`."""
        up, down = _matrix(self.up), _matrix(self.down)
        if self.mid is None:
            product = up @ down
        else:
            product = np.einsum("oa,abhw,bi->oihw", up, _float32(self.mid), down, optimize=True)
        return _shaped(product, shape, self.scaling)


@dataclasses.dataclass(frozen=True)
class Hadamard:
    """LoHa: the elementwise product of two low-rank matrices.

    Attributes:
        first: a pair `[out, rank]`, `[rank, in ...]`; with a core, `[rank, out]`, `[rank, in]`.
        second: likewise.
        scaling: alpha / rank.
        cores: two tensors `[rank, rank, height, width]`, or None.
    """

    first: tuple[np.ndarray, np.ndarray]
    second: tuple[np.ndarray, np.ndarray]
    scaling: float
    cores: tuple[np.ndarray, np.ndarray] | None = None

    def delta(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Delta`."""
        if self.cores is None:
            products = [_matrix(a) @ _matrix(b) for a, b in (self.first, self.second)]
        else:
            products = [
                _tucker(core, *pair)
                for core, pair in zip(self.cores, (self.first, self.second), strict=True)
            ]
        return _shaped(products[0] * products[1], shape, self.scaling)


@dataclasses.dataclass(frozen=True)
class Kronecker:
    """LoKr: the Kronecker product of two matrices, each whole or factored.

    Attributes:
        first: one matrix, or two that multiply to it.
        second: one matrix (or kernel), or two that multiply to it.
        scaling: alpha / rank; 1 where neither is factored.
        core: `[rank, rank, height, width]` of the second, or None.
    """

    first: tuple[np.ndarray, ...]
    second: tuple[np.ndarray, ...]
    scaling: float
    core: np.ndarray | None = None

    def delta(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Delta`."""
        first = _product(self.first)
        second = _product(self.second) if self.core is None else _tucker(self.core, *self.second)
        first = first.reshape(first.shape + (1,) * (second.ndim - first.ndim))
        return _shaped(np.kron(first, second), shape, self.scaling)


@dataclasses.dataclass(frozen=True)
class Difference:
    """A difference stored in full.

    Attributes:
        values: of the weight's size.
        scaling: what it is multiplied by.
    """

    values: np.ndarray
    scaling: float = 1.0

    def delta(self, shape: tuple[int, ...]) -> np.ndarray:
        """See `Delta`."""
        return _shaped(_float32(self.values), shape, self.scaling)


@dataclasses.dataclass(frozen=True)
class Replaced:
    """A weight stored in full; strengths below 1 mix it with the old one.

    Attributes:
        values: of the weight's size.
    """

    values: np.ndarray

    def apply(self, weight: np.ndarray, scale: float) -> np.ndarray:
        """The way from `weight` to the new one, times `scale`."""
        return (_float32(self.values).reshape(weight.shape) - weight) * np.float32(scale)


@dataclasses.dataclass(frozen=True)
class Decomposed:
    """DoRA: direction from a `Delta`, length from a stored magnitude.

    The strength multiplies the delta inside the norm, as in PEFT (`dora.py`): m V / |V| with
    V = W + s D. Training tools that keep the length of each input instead differ in the axis only.

    Attributes:
        direction: the change of direction.
        magnitude: lengths, one for each output (or input) of the weight.
        by_input: whether lengths are those of the weight's columns.
    """

    direction: Delta
    magnitude: np.ndarray
    by_input: bool = False

    def apply(self, weight: np.ndarray, scale: float) -> np.ndarray:
        """The way from `weight` to the recomposed one."""
        changed = weight + self.direction.delta(weight.shape) * np.float32(scale)
        kept = 1 if self.by_input else 0
        others = tuple(axis for axis in range(weight.ndim) if axis != kept)
        norm = np.sqrt(np.sum(np.square(changed, dtype=np.float64), axis=others, keepdims=True))
        length = self.magnitude.astype(np.float64).reshape(norm.shape)
        factor = np.divide(length, norm, out=np.ones_like(norm), where=norm > 0)
        return changed * factor.astype(np.float32) - weight


def _float32(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float32, copy=False)


def _matrix(array: np.ndarray) -> np.ndarray:
    return _float32(array).reshape(array.shape[0], -1)


def _product(factors: tuple[np.ndarray, ...]) -> np.ndarray:
    if len(factors) == 1:
        return _float32(factors[0])
    return _matrix(factors[0]) @ _matrix(factors[1])


def _tucker(core: np.ndarray, outputs: np.ndarray, inputs: np.ndarray) -> np.ndarray:
    """A kernel `[out, in, height, width]` of a core and matrices `[rank, out]`, `[rank, in]`."""
    return np.einsum(
        "abhw,ao,bi->oihw", _float32(core), _float32(outputs), _float32(inputs), optimize=True
    )


def _shaped(product: np.ndarray, shape: tuple[int, ...], scaling: float) -> np.ndarray:
    result = product.reshape(shape)
    return result if scaling == 1.0 else result * np.float32(scaling)
