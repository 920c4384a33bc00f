"""Parameters in an Orbax checkpoint: nested dictionaries of arrays, and nothing else.

No classes of ours or of Flax are stored, so a file outlives them. Sources: Orbax's v1 interface.
"""

from __future__ import annotations

import contextlib
import glob
import logging
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from hotshot_jax.convert.tensors.file_content import check_file_list, write_file_list
from hotshot_jax.convert.tensors.tensor_source import first_names
from hotshot_jax.errors import HotshotError, is_out_of_memory
from hotshot_jax.files.plain_file import check_plain_folder
from hotshot_jax.writing.staging import check_disk_space

# Pieces in which an array is stored. A device that holds a shard reads whole pieces: smaller ones
# save reading, larger ones copying.
_CHUNK_BYTES = 128 * 2**20
# Bytes on their way to or from the disk beside the arrays themselves.
_IN_FLIGHT_BYTES = 256 * 2**20


def save(path: str | os.PathLike[str], tree: Mapping[Any, Any]) -> None:
    """Write a tree of arrays to a new folder.

    Memory beside the arrays stays below the larger of 256 MiB and the largest array, twice over.

    Args:
        path: the folder to make; Orbax renames it into place when it is complete.
        tree: nested dictionaries, with texts or integers as keys, of ``jax.Array`` or
            ``numpy.ndarray`` of any shape and dtype. Sharded arrays are written by the processes
            that hold the shards.

    Raises:
        HotshotError: ``path`` exists or cannot be written, or the disk has too little room.
        TypeError: a leaf is no array, or an array of size zero, which Orbax cannot store.
    """
    path = Path(os.path.abspath(path))
    tree = _text_keys(tree)
    for name, leaf in _flatten(tree).items():
        if not isinstance(leaf, jax.Array | np.ndarray) or leaf.size == 0:
            raise TypeError(f"{name}: only arrays that hold something can be saved, not {leaf!r}")
    leaves = jax.tree.leaves(tree)
    _check_writable(path)
    check_disk_space(path, sum(leaf.nbytes for leaf in leaves))
    try:
        with quiet(), _context(leaves):
            _orbax().save(path, tree)
        if jax.process_index() == 0:
            write_file_list(path)
    except (OSError, ValueError) as error:
        for unfinished in path.parent.glob(f"{glob.escape(path.name)}.orbax-checkpoint-tmp*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        if "No space left" in str(error):
            raise HotshotError(
                f"the disk is full: {path} was not written; free some space and run again"
            ) from error
        raise HotshotError(f"{path} cannot be written: {_first_line(error)}") from error


def metadata(
    path: str | os.PathLike[str], *, whole: bool = False
) -> dict[str, jax.ShapeDtypeStruct]:
    """Tell what a checkpoint holds without reading its arrays.

    Args:
        path: the folder that ``save`` wrote.
        whole: whether the checksums of all its files are looked at, and not of the small ones.

    Returns:
        Shape and dtype of each array, by its keys joined with "/".

    Raises:
        HotshotError: nothing is at ``path``, or no complete checkpoint.
    """
    path = Path(os.path.abspath(path))
    if not path.is_dir():
        raise HotshotError(f"{path} does not exist or is no folder; expected an Orbax checkpoint")
    check_file_list(path, whole=whole)
    try:
        check_plain_folder(path)
        with quiet():
            tree = _orbax().metadata(path).metadata
    # Orbax and TensorStore raise errors of every class on files that are damaged or edited.
    except Exception as error:
        raise _broken(path, error) from error
    if tree is None:
        raise _broken(path, None)
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, np.dtype(leaf.dtype))
        for name, leaf in _flatten(tree).items()
    }


def check(path: str | os.PathLike[str], abstract: Mapping[Any, Any]) -> None:
    """Check that a checkpoint holds certain arrays, without reading them.

    Args:
        path: the folder that ``save`` wrote.
        abstract: nested dictionaries of leaves with a shape.

    Raises:
        HotshotError: as ``load`` does.
    """
    path = Path(os.path.abspath(path))
    _check_match(path, metadata(path), _flatten(abstract))


def load(path: str | os.PathLike[str], abstract: Mapping[Any, Any]) -> dict[Any, Any]:
    """Read a checkpoint straight into the shardings of ``abstract``.

    Args:
        path: the folder that ``save`` wrote.
        abstract: nested dictionaries of ``jax.ShapeDtypeStruct``; an array is placed by the leaf's
            ``sharding`` (None: the default device) and cast to the leaf's dtype.

    Returns:
        Arrays in the structure of ``abstract``.

    Raises:
        HotshotError: no complete checkpoint is at ``path``; or arrays are missing, not expected or
            of another shape, all of which one message lists.
        RuntimeError: the device's memory does not suffice, see `is_out_of_memory`.
    """
    path = Path(os.path.abspath(path))
    stored = metadata(path, whole=True)
    _check_match(path, stored, _flatten(abstract))
    targets = jax.tree.map(_with_sharding, _text_keys(abstract))
    try:
        with quiet(), _context([*jax.tree.leaves(targets), *stored.values()]):
            loaded = _orbax().load(path, targets)
    except Exception as error:
        if is_out_of_memory(error):
            # Nothing is wrong with the files.
            raise
        raise _broken(path, error) from error
    return _like(abstract, loaded)


def _check_writable(path: Path) -> None:
    # Orbax's own answer to a folder that cannot be made is to wait for minutes.
    try:
        path.mkdir()
        path.rmdir()
    except FileExistsError:
        raise HotshotError(
            f"{path} exists already; a checkpoint is only written to a new folder"
        ) from None
    except OSError as error:
        raise HotshotError(f"{path} cannot be written: {error.strerror or error}") from None


def _orbax() -> Any:
    # Half a second of start-up, which most runs of a published checkpoint do without.
    from orbax.checkpoint import v1

    return v1


def _context(leaves: list[Any]) -> Any:
    # Orbax refuses an array that is larger than its limit of bytes in flight.
    largest = max((math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves), default=0)
    limit = max(_IN_FLIGHT_BYTES, largest + 1)
    context = _orbax().Context()
    # Compression holds everything compressed in memory until the file is complete, which costs
    # three quarters of the weights' size, for a quarter less on disk.
    context.array.saving.use_compression = False
    context.array.saving.storage_options.chunk_byte_size = _CHUNK_BYTES
    context.memory.write_concurrent_bytes = limit
    context.memory.read_concurrent_bytes = limit
    context.memory.deepcopy_host_arrays = False
    return context


def _check_match(
    path: Path, stored: Mapping[str, jax.ShapeDtypeStruct], expected: Mapping[str, Any]
) -> None:
    wrong = [
        f"{name} {list(stored[name].shape)}, expected {list(leaf.shape)}"
        for name, leaf in expected.items()
        if name in stored and stored[name].shape != tuple(leaf.shape)
    ]
    problems = [
        f"{len(group)} {kind}: {first_names(group)}"
        for kind, group in (
            ("missing", [name for name in expected if name not in stored]),
            ("not part of the model", [name for name in stored if name not in expected]),
            ("of another shape", wrong),
        )
        if group
    ]
    if problems:
        raise HotshotError(
            f"{path} does not fit the model that its configuration describes; "
            f"convert the checkpoint again. {'; '.join(problems)}"
        )


def _with_sharding(leaf: Any) -> jax.ShapeDtypeStruct:
    sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _text_keys(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {str(key): _text_keys(value) for key, value in tree.items()}
    return tree


def _like(structure: Any, loaded: Any) -> Any:
    if isinstance(structure, Mapping):
        return {key: _like(value, loaded[str(key)]) for key, value in structure.items()}
    return loaded


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping):
        return {prefix: tree}
    return {
        name: leaf
        for key, value in tree.items()
        for name, leaf in _flatten(value, f"{prefix}/{key}" if prefix else str(key)).items()
    }


def _broken(path: Path, error: Exception | None) -> HotshotError:
    detail = "" if error is None else f" ({_first_line(error)})"
    return HotshotError(
        f"{path} is not a complete Orbax checkpoint{detail}; its writing was interrupted or files "
        "are damaged, convert the checkpoint again"
    )


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0]
    return text if len(text) <= 120 else f"{text[:117]}..."


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep Orbax's log lines off the screen: what matters in them is raised as an error."""
    loggers = [logging.getLogger(name) for name in ("absl", "asyncio")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
