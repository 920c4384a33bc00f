"""One .safetensors file, memory-mapped: checked as a whole when opened, read tensor by tensor.

The format is 8 bytes of header length (little endian), a JSON header, and one buffer that the
tensors fill without holes (https://huggingface.co/docs/safetensors). It is parsed here rather than
by the safetensors library for two reasons. The library's mapping keeps every page that was touched
resident until the file is closed and its NumPy tensors are copies, so that reading a model costs
its size in memory once more; here tensors are views on the mapping, and ``release`` gives their
pages back. And each way in which a file can be broken gets a message that says what to do.

Files are written one tensor at a time: the library's own writer wants all of them in memory at
once, and a full-size UNet has 5 GB of them.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import reprlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from hotshot_jax.convert.tensors.file_content import (
    describe_foreign,
    describe_unreadable,
    parse_json_object,
)
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import (
    MOST_DIMENSIONS,
    MOST_HEADER_BYTES,
    MOST_NAME_CHARACTERS,
    MOST_TENSORS,
    open_plain,
)

# Name in the file -> (bits an element takes in the file, NumPy type).
_DTYPES: dict[str, tuple[int, np.dtype[Any]]] = {
    "BOOL": (8, np.dtype(np.bool_)),
    "U8": (8, np.dtype(np.uint8)),
    "I8": (8, np.dtype(np.int8)),
    "U16": (16, np.dtype(np.uint16)),
    "I16": (16, np.dtype(np.int16)),
    "U32": (32, np.dtype(np.uint32)),
    "I32": (32, np.dtype(np.int32)),
    "U64": (64, np.dtype(np.uint64)),
    "I64": (64, np.dtype(np.int64)),
    "F4": (4, np.dtype(ml_dtypes.float4_e2m1fn)),
    "F6_E2M3": (6, np.dtype(ml_dtypes.float6_e2m3fn)),
    "F6_E3M2": (6, np.dtype(ml_dtypes.float6_e3m2fn)),
    "F8_E4M3": (8, np.dtype(ml_dtypes.float8_e4m3fn)),
    "F8_E5M2": (8, np.dtype(ml_dtypes.float8_e5m2)),
    "F8_E8M0": (8, np.dtype(ml_dtypes.float8_e8m0fnu)),
    "F8_E4M3FNUZ": (8, np.dtype(ml_dtypes.float8_e4m3fnuz)),
    "F8_E5M2FNUZ": (8, np.dtype(ml_dtypes.float8_e5m2fnuz)),
    "F16": (16, np.dtype(np.float16)),
    "BF16": (16, np.dtype(ml_dtypes.bfloat16)),
    "F32": (32, np.dtype(np.float32)),
    "F64": (64, np.dtype(np.float64)),
    "C64": (64, np.dtype(np.complex64)),
}


@dataclass(frozen=True)
class _Entry:
    """Where one tensor lies: byte offsets count from the start of the file."""

    dtype: np.dtype[Any]
    bits: int
    shape: tuple[int, ...]
    begin: int
    end: int


class SafetensorsFile:
    """A .safetensors file whose header has been checked against its length.

    Tensors are read-only views on the mapped file. Nothing is read before it is asked for.

    Args:
        path: the file; links are followed (as in the cache of the Hub client).

    Raises:
        HotshotError: the file is missing, empty, a Git-LFS pointer, a web page or a pickle; the
            header is longer than the file or not JSON; a tensor has an unknown type, offsets
            outside the file, that overlap or leave a hole, or a size that does not fit its shape;
            the file is shorter or longer than its header says.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._map = _map_file(self.path)
        self._entries, self.metadata = _read_header(self.path, self._map)

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in the order of the header."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; () for a scalar."""
        return self._entry(name).shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The NumPy type of a tensor (those of ml_dtypes for bfloat16 and the 8-bit floats)."""
        return self._entry(name).dtype

    def read(self, name: str) -> np.ndarray:
        """Return a tensor as a read-only view on the mapped file, without a copy.

        The view stays valid for as long as it is referenced, also after ``release``.

        Raises:
            HotshotError: no tensor of this name, or its elements are packed below a byte.
        """
        entry = self._entry(name)
        if entry.bits < 8:
            raise HotshotError(
                f"{self.path}: tensor '{name}' holds {entry.bits}-bit numbers, which are not "
                "supported; use the float16 or bfloat16 file of this model"
            )
        if entry.begin == entry.end:
            return np.empty(entry.shape, entry.dtype)
        count = (entry.end - entry.begin) * 8 // entry.bits
        flat = np.frombuffer(self._map, entry.dtype, count=count, offset=entry.begin)
        return flat.reshape(entry.shape)

    def release(self, name: str) -> None:
        """Give back the memory that reading a tensor has made resident.

        Views stay valid: their pages come from the file again when they are touched. So this is
        only about memory, and calling it too early costs time, never correctness.
        """
        entry = self._entry(name)
        if not hasattr(mmap, "MADV_DONTNEED"):
            return
        begin = entry.begin // mmap.PAGESIZE * mmap.PAGESIZE
        if entry.end > begin:
            self._map.madvise(mmap.MADV_DONTNEED, begin, entry.end - begin)

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise HotshotError(f"{self.path} holds no tensor named '{name}'") from None


def _map_file(path: Path) -> mmap.mmap:
    try:
        with open_plain(path) as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise HotshotError(f"{path} is empty (zero bytes); download it again")
            head = file.read(64)
            # The length of a header can be any number, and look like the mark of any other kind.
            is_header = _header_length(head) <= MOST_HEADER_BYTES and head[8:9] == b"{"
            foreign = None if is_header else describe_foreign(head)
            if foreign is not None:
                raise HotshotError(f"{path} {foreign}")
            if size < 8:
                raise HotshotError(
                    f"{path} has only {size} bytes, too few for a safetensors file; "
                    "download it again"
                )
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise HotshotError(describe_unreadable(path, error)) from None


def _header_length(head: bytes) -> int:
    return int.from_bytes(head[:8], "little")


def _read_header(path: Path, content: mmap.mmap) -> tuple[dict[str, _Entry], Mapping[str, str]]:
    length = _header_length(content[:8])
    available = len(content) - 8
    if length > MOST_HEADER_BYTES or length > available:
        raise HotshotError(
            f"{path} is cut short or not a safetensors file: its header should have {length} "
            f"bytes, the file holds {available} after the length; download it again"
        )
    text = content[8 : 8 + length]
    if text.count(b'"data_offsets"') > MOST_TENSORS:
        raise HotshotError(f"{path} has more than {MOST_TENSORS} tensors, which no model here has")
    header = parse_json_object(text, f"the header of {path}")
    metadata = header.pop("__metadata__", None)
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _broken(path, "its __metadata__ is not a table of texts")
    base = 8 + length
    entries = {name: _parse_entry(path, base, name, value) for name, value in header.items()}
    _check_coverage(path, base, len(content), entries)
    return entries, MappingProxyType(metadata)


def _parse_entry(path: Path, base: int, name: str, value: Any) -> _Entry:
    if len(name) > MOST_NAME_CHARACTERS:
        raise _broken(path, f"a tensor's name has {len(name)} characters")
    if not isinstance(value, dict) or not {"dtype", "shape", "data_offsets"} <= value.keys():
        raise _broken(path, f"tensor '{name}' lacks dtype, shape or data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in _DTYPES:
        raise HotshotError(
            f"{path}: tensor '{name}' has the unknown type {reprlib.repr(kind)}; "
            f"known are {', '.join(_DTYPES)}. Use a float16, bfloat16 or float32 file"
        )
    if not _is_sizes(shape) or len(shape) > MOST_DIMENSIONS:
        raise _broken(path, f"tensor '{name}' has the invalid shape {reprlib.repr(shape)}")
    if not _is_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise _broken(path, f"tensor '{name}' has the invalid offsets {reprlib.repr(offsets)}")
    bits, dtype = _DTYPES[kind]
    needed = math.prod(shape) * bits
    if needed != (offsets[1] - offsets[0]) * 8:
        raise _broken(
            path,
            f"tensor '{name}' of shape {shape} in {kind} needs {-(-needed // 8)} bytes "
            f"but has {offsets[1] - offsets[0]}",
        )
    return _Entry(dtype, bits, tuple(shape), base + offsets[0], base + offsets[1])


def _is_sizes(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(item) is int and 0 <= item < 1 << 63 for item in value
    )


def _check_coverage(path: Path, base: int, size: int, entries: Mapping[str, _Entry]) -> None:
    end = max((entry.end for entry in entries.values()), default=base)
    if end > size:
        last = max(entries, key=lambda name: entries[name].end)
        raise HotshotError(
            f"{path} is cut short: it has {size} bytes, its header describes {end} "
            f"(tensor '{last}' ends outside the file); download it again"
        )
    position, previous = base, ""
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin < position:
            raise _broken(path, f"tensors '{previous}' and '{name}' overlap")
        if entry.begin > position:
            raise _broken(
                path, f"{entry.begin - position} bytes before tensor '{name}' belong to no tensor"
            )
        position, previous = entry.end, name
    if position < size:
        raise _broken(path, f"{size - position} bytes at its end belong to no tensor")


def _broken(path: Path, reason: str) -> HotshotError:
    return HotshotError(f"{path} is not a valid safetensors file: {reason}; download it again")


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
