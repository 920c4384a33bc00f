"""How much memory a pipeline's weights take, by component."""

import math
from typing import Any

from hotshot_jax.convert.rules import flat_parameters
from hotshot_jax.pipelines.components import MODELS


def weight_bytes(pipeline: Any) -> dict[str, int]:
    """Bytes of each model's parameters, by its name."""
    return {
        name: sum(
            math.prod(leaf.shape) * leaf.dtype.itemsize
            for leaf in flat_parameters(getattr(pipeline.components, name)).values()
        )
        for name in MODELS
    }


def describe_memory(pipeline: Any) -> str:
    """The weights by component, in words."""
    parts = weight_bytes(pipeline)
    listed = ", ".join(f"{name} {describe_size(size)}" for name, size in parts.items())
    return f"weights {describe_size(sum(parts.values()))} ({listed})"


def describe_size(size: int) -> str:
    """A number of bytes, in words."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
