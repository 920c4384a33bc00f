"""A model filled from tensors as a checkpoint fills it, and its size."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx

from hotshot_jax.convert.load import Module, Progress, fill_module, match_module
from hotshot_jax.convert.tensors.rules import Path, flat_parameters
from hotshot_jax.convert.tensors.tensor_source import TensorSource


def load_module(
    build: Callable[[nnx.Rngs], Module],
    source: TensorSource,
    *,
    where: str,
    dtype: Any,
    shardings: Mapping[Path, jax.sharding.Sharding] | jax.sharding.Sharding | None = None,
    progress: Progress = lambda size: None,
) -> Module:
    """Builds a module and fills it; the arguments are those of `match_module` and `fill_module`."""
    match = match_module(build, source, where=where)
    return fill_module(match, source, dtype=dtype, shardings=shardings, progress=progress)


def parameter_count(module: Any) -> int:
    """Number of trainable values in a module."""
    return sum(math.prod(leaf.shape) for leaf in flat_parameters(module).values())
