"""Writing .safetensors files one tensor at a time.

The library's own writer wants all tensors in memory at once; a full-size UNet has 5 GB of them.
"""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_NAMES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "bfloat16": "BF16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint8": "U8",
    "bool": "BOOL",
}
_ALIGNMENT = 8


def write_safetensors(
    path: Path,
    layout: Mapping[str, tuple[tuple[int, ...], np.dtype[Any]]],
    tensors: Iterable[tuple[str, np.ndarray]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Writes a file whose tensors are handed over one after another.

    Args:
        path: the file.
        layout: shape and dtype of every tensor, in the order of `tensors`.
        tensors: names and arrays.
        metadata: texts for the header.

    Raises:
        ValueError: a tensor does not come in the order or form of `layout`.
    """
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, (shape, dtype) in layout.items():
        size = math.prod(shape) * dtype.itemsize
        header[name] = {
            "dtype": _NAMES[dtype.name],
            "shape": list(shape),
            "data_offsets": [position, position + size],
        }
        position += size
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % _ALIGNMENT)
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little"))
        file.write(encoded)
        for (name, (shape, dtype)), (given, tensor) in zip(layout.items(), tensors, strict=True):
            if (given, tensor.shape, tensor.dtype) != (name, tuple(shape), dtype):
                raise ValueError(f"{given} {tensor.shape} {tensor.dtype}; expected {name}")
            # bfloat16 is no dtype that NumPy's own file writing knows.
            file.write(np.ascontiguousarray(tensor).view(np.uint8).data)
