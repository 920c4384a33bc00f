"""Weights that are a function of name, shape and seed, so that parity data need not store any.

The rule is the published one of the parity data (their README, "Weights"): standard normal numbers
from PCG64 seeded with [seed, crc32(name)], in PyTorch's shape, then

- scales of norms (one axis, name ends in `.weight`): 1 + 0.1 x;
- other vectors: 0.05 x;
- token and position embeddings of text models: 0.5 x;
- everything else: x / sqrt(fan in), fan in being the product of all axes but the first.
"""

import functools
import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource

_TEXT_EMBEDDINGS = ("token_embedding.weight", "position_embedding.weight")


def formula_tensor(name: str, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float32]:
    """The values of one PyTorch tensor.

    Args:
        name: key in the model's own state dict.
        shape: PyTorch's shape.
        seed: the model's weight seed.

    Returns:
        float32 of that shape.
    """
    generator = np.random.Generator(np.random.PCG64([seed, zlib.crc32(name.encode())]))
    x = generator.standard_normal(shape, np.float32)
    if len(shape) == 1:
        if name.endswith(".weight"):
            return np.float32(1) + np.float32(0.1) * x
        return np.float32(0.05) * x
    if name.endswith(_TEXT_EMBEDDINGS):
        return np.float32(0.5) * x
    return x / np.float32(math.sqrt(math.prod(shape[1:])))


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The learned tensors that a `*.shapes.json` lists; buffers are left out."""
    return {
        name: tuple(entry["shape"])
        for name, entry in json.loads(path.read_text()).items()
        if not entry["buffer"]
    }


def formula_source(shapes: Mapping[str, tuple[int, ...]], seed: int, where: Path) -> TensorSource:
    """A checkpoint with formula weights that exists nowhere: tensors are computed when read.

    Args:
        shapes: PyTorch's shape by name.
        seed: the model's weight seed.
        where: what messages name as the checkpoint.
    """
    return TensorSource(
        (
            LazyTensor(
                name=name,
                shape=shape,
                dtype=np.dtype(np.float32),
                file=where,
                reader=functools.partial(formula_tensor, name, shape, seed),
                releaser=_nothing_to_release,
            )
            for name, shape in shapes.items()
        ),
        where,
    )


def _nothing_to_release() -> None:
    """Computed tensors are ordinary memory, which goes with its last reference."""
