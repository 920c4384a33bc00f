"""Models of this package and their PyTorch twins, with the same formula weights."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks.models.formula_weights import formula_source, formula_tensor
from benchmarks.models.loading import load_module
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import torch_slots

# Two float32 implementations of one model differ by some 1e-6 of the largest value; epsilons,
# activations or norms that are not the reference's move tiny models by 1e-5 and (mostly far) more.
MODEL_TOLERANCE = 1e-5


def build(make: Callable[[nnx.Rngs], Any], seed: int = 0) -> Any:
    """A float32 module with formula weights, loaded as a checkpoint is."""
    shapes = {name: slot.shape for name, slot in torch_slots(abstract(make)).items()}
    source = formula_source(shapes, seed, Path("formula"))
    return load_module(make, source, where="formula", dtype=jnp.float32)


def fill(twin: torch.nn.Module, prefix: str = "", seed: int = 0) -> Any:
    """Fills a PyTorch module; `prefix` goes before its names where ours are longer."""
    twin.load_state_dict(
        {
            name: torch.from_numpy(formula_tensor(prefix + name, tuple(tensor.shape), seed))
            for name, tensor in twin.state_dict().items()
        }
    )
    return twin.eval().requires_grad_(False)


def names(twin: torch.nn.Module, prefix: str = "") -> set[str]:
    return {prefix + name for name in twin.state_dict()}


def to_torch(x: np.ndarray) -> torch.Tensor:
    """`[batch, ..., channels]` as PyTorch's `[batch, channels, ...]`."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(np.asarray(x), -1, 1)))


def from_torch(x: torch.Tensor) -> np.ndarray:
    """The inverse of `to_torch`."""
    return np.moveaxis(x.numpy(), 1, -1)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, np.float32)


def relative_error(got: Any, expected: Any) -> float:
    """Largest difference over the largest value."""
    got, expected = np.asarray(got, np.float64), np.asarray(expected, np.float64)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())
