"""Tensors by name, wherever they lie: one file, several shards, or derived from other tensors.

Everything that turns a checkpoint into arrays takes a ``TensorSource``. A tensor in it is lazy: its
name, shape and type are known, its numbers are read when asked for and can be given back at once.
"""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.convert.tensors.safetensors_file import SafetensorsFile
from hotshot_jax.errors import HotshotError

_BLOCK = 1 << 18


@dataclass(frozen=True)
class LazyTensor:
    """A named tensor that is read when asked for.

    Attributes:
        name: its name in the source (a PyTorch state dict key).
        shape: its shape, known without reading.
        dtype: its NumPy type, known without reading.
        file: the file that it comes from, for messages.
        reader: returns the numbers; the array may be a read-only view on a mapped file.
        releaser: gives back the memory that the reader has made resident.
        reader_as: of a computed tensor, returns the numbers rounded to a type, in one go with the
            computation; None where there is nothing to gain.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: Path
    reader: Callable[[], np.ndarray]
    releaser: Callable[[], None]
    reader_as: Callable[[np.dtype[Any]], np.ndarray] | None = None

    @property
    def nbytes(self) -> int:
        """Bytes that the tensor takes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize

    def read(self) -> np.ndarray:
        """Return the tensor, of ``shape`` and ``dtype``; possibly a read-only view."""
        return self.reader()

    def read_for(self, dtype: Any) -> np.ndarray:
        """Return the tensor for somebody who will cast it to ``dtype``.

        Args:
            dtype: the wanted type.

        Returns:
            Of ``shape``, in the tensor's own type or the wanted one; possibly read-only.
        """
        return self.read() if self.reader_as is None else self.reader_as(np.dtype(dtype))

    def release(self) -> None:
        """Give back what ``read`` has made resident. Arrays read before stay valid."""
        self.releaser()

    def renamed(self, name: str) -> LazyTensor:
        """The same tensor under another name."""
        return replace(self, name=name)

    def mapped(
        self, name: str, shape: tuple[int, ...], function: Callable[[np.ndarray], np.ndarray]
    ) -> LazyTensor:
        """A tensor computed from this one when it is read, for example a slice of it.

        Args:
            name: name of the new tensor.
            shape: shape of the function's result; its type must be this tensor's.
            function: array to array; should return a view where it can.
        """
        return self.recomputed(lambda: function(self.reader()), name=name, shape=shape)

    def recomputed(self, reader: Callable[[], np.ndarray], **changes: Any) -> LazyTensor:
        """A tensor with other numbers.

        Args:
            reader: returns them.
            changes: other fields that differ.
        """
        return replace(self, reader=reader, **{"reader_as": None, **changes})


class TensorSource(Mapping[str, LazyTensor]):
    """An immutable mapping from names to lazy tensors.

    Args:
        tensors: the tensors; the order is kept.
        path: the file or folder that messages name.
        metadata: texts that came with the file (kept for the first file of several).

    Raises:
        HotshotError: two tensors have the same name.
    """

    def __init__(
        self,
        tensors: Iterable[LazyTensor],
        path: str | os.PathLike[str],
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        self.path = Path(path)
        self.metadata: Mapping[str, str] = MappingProxyType(dict(metadata or {}))
        self._tensors: dict[str, LazyTensor] = {}
        for tensor in tensors:
            earlier = self._tensors.setdefault(tensor.name, tensor)
            if earlier is not tensor:
                raise HotshotError(
                    f"{self.path}: tensor '{tensor.name}' comes from two places, {earlier.file} "
                    f"and {tensor.file}; keep one of the files"
                )

    def __getitem__(self, name: str) -> LazyTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"TensorSource({len(self)} tensors, {str(self.path)!r})"

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors' names, in order."""
        return tuple(self._tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return sum(tensor.nbytes for tensor in self.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; KeyError where there is none of this name."""
        return self._tensors[name].shape

    def dtype(self, name: str) -> np.dtype[Any]:
        """The NumPy type of a tensor; KeyError where there is none of this name."""
        return self._tensors[name].dtype

    def read(self, name: str) -> np.ndarray:
        """The numbers of a tensor, possibly a read-only view on a mapped file."""
        return self._tensors[name].read()

    def release(self, name: str) -> None:
        """Give back the memory that ``read`` has made resident; call it after each tensor.

        Without it every page of a mapped file that was touched stays resident, and reading a
        checkpoint costs its whole size in memory beside the converted weights.
        """
        self._tensors[name].release()

    def renamed(self, rename: Callable[[str], str | None]) -> TensorSource:
        """The same tensors under new names; a name of None leaves the tensor out.

        Raises:
            HotshotError: two tensors get the same name.
        """
        names = ((tensor, rename(name)) for name, tensor in self.items())
        kept = (tensor.renamed(name) for tensor, name in names if name is not None)
        return TensorSource(kept, self.path, self.metadata)

    def below(self, prefix: str) -> TensorSource:
        """The tensors whose names start with ``prefix``, with the prefix removed."""
        return self.renamed(
            lambda name: name.removeprefix(prefix) if name.startswith(prefix) else None
        )


def open_file(path: str | os.PathLike[str]) -> TensorSource:
    """Open one .safetensors file.

    Raises:
        HotshotError: the file is damaged or something else (see ``SafetensorsFile``).
    """
    file = SafetensorsFile(path)
    return TensorSource(_tensors_of(file), file.path, file.metadata)


def open_files(
    paths: Iterable[str | os.PathLike[str]], path: str | os.PathLike[str]
) -> TensorSource:
    """Open several .safetensors files whose tensors belong together.

    Args:
        paths: the files.
        path: the folder or file that messages name.

    Raises:
        HotshotError: a file is damaged, or two hold a tensor of the same name.
    """
    files = [SafetensorsFile(each) for each in paths]
    metadata = files[0].metadata if files else {}
    return TensorSource((tensor for file in files for tensor in _tensors_of(file)), path, metadata)


def open_index(index: str | os.PathLike[str]) -> TensorSource:
    """Open the shards that an index file (``*.safetensors.index.json``) lists.

    Args:
        index: JSON with ``weight_map``, from tensor name to the name of a file beside the index.

    Raises:
        HotshotError: the index is invalid; it names a file that does not exist or lies in another
            folder, or a tensor that its file does not hold; a shard holds a tensor that the index
            does not name, or that another shard holds too; a shard is damaged.
    """
    index = Path(index)
    weight_map = read_weight_map(index)
    shards = sorted(set(weight_map.values()))
    absent = [shard for shard in shards if not (index.parent / shard).exists()]
    if absent:
        raise HotshotError(
            f"{index} lists {first_names(absent)}, which {'is' if len(absent) == 1 else 'are'} not "
            "beside it; download the missing shards"
        )
    source = open_files((index.parent / shard for shard in shards), index)
    lost = [
        f"{name} (in {shard})"
        for name, shard in weight_map.items()
        if name not in source or source[name].file.name != shard
    ]
    if lost:
        raise HotshotError(
            f"{index} names tensors that their files do not hold: {first_names(lost)}; "
            "index and shards are not of the same download, download both again"
        )
    unlisted = [f"{name} (in {source[name].file.name})" for name in source.keys() - weight_map]
    if unlisted:
        raise HotshotError(
            f"{index} does not name tensors that its shards hold: {first_names(sorted(unlisted))}; "
            "index and shards are not of the same download, download both again"
        )
    return source


def read_weight_map(index: Path) -> dict[str, str]:
    """Read the ``weight_map`` of an index file: tensor name to file name.

    Raises:
        HotshotError: the file is invalid, has no weight map or an empty one, or names a file with
            a path in it.
    """
    weight_map = read_json_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise HotshotError(f"{index} has no weight_map of tensor and file names; download it again")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not shard:
            raise HotshotError(f"{index}: the file of '{name}' is {shard!r}, not a file name")
        if "/" in shard or "\\" in shard or shard in (".", ".."):
            raise HotshotError(
                f"{index}: the file of '{name}' is {shard!r}; "
                "only files in the same folder are read"
            )
    return weight_map


def check_finite(what: str, array: np.ndarray) -> None:
    """Raise where a tensor holds NaN or infinite values.

    A floating-point number is not finite exactly when all bits of its exponent are set, so this
    is a mask and a maximum over integers, block by block: no temporary of the tensor's size, and
    as fast for bfloat16, which NumPy itself handles one element at a time.

    Args:
        what: the tensor's name (and file), for the message.
        array: numbers of any type; integers and booleans are always finite.

    Raises:
        HotshotError: some values are not finite; the message counts them.
    """
    mask = _exponent_mask(array.dtype)
    if mask is None or array.size == 0:
        return
    bits = array.ravel(order="K").view(mask.dtype)
    buffer = np.empty(min(_BLOCK, bits.size), mask.dtype)
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        if np.bitwise_and(block, mask, out=buffer[: block.size]).max() == mask:
            count = np.count_nonzero((bits & mask) == mask)
            raise HotshotError(
                f"{what}: {count} of {array.size} values are NaN or infinite; the file is damaged "
                "or its numbers overflowed when it was saved, use another copy or precision"
            )


def _exponent_mask(dtype: np.dtype[Any]) -> Any:
    if dtype.name not in ("float16", "bfloat16", "float32", "float64"):
        return None
    info = ml_dtypes.finfo(dtype)
    return np.dtype(f"u{dtype.itemsize}").type((2**info.nexp - 1) << info.nmant)


def _tensors_of(file: SafetensorsFile) -> Iterator[LazyTensor]:
    for name in file.names:
        yield LazyTensor(
            name=name,
            shape=file.shape(name),
            dtype=file.dtype(name),
            file=file.path,
            reader=functools.partial(file.read, name),
            releaser=functools.partial(file.release, name),
        )


def first_names(names: Sequence[str], count: int = 5) -> str:
    """The first ``count`` names separated by commas, and how many more there are."""
    shown = ", ".join(names[:count])
    more = len(names) - count
    return shown if more <= 0 else f"{shown} and {more} more"
