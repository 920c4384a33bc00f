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
    listed = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return f"weights {_size(sum(parts.values()))} ({listed})"


def _size(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"
