"""Clips in a TFDS data set of array_record form, read by `tfds.data_source` without TensorFlow.

A table of sizes beside the records spares reading a million of them to sort them into buckets. It
is made when the data set is built, or on first use.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np

from hotshot_jax.data.clip_source import CLIP_DTYPE, ClipTable, EncodedClip
from hotshot_jax.data.left_out import LeftOut, Tally
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.plain_file import check_plain, check_plain_folder
from hotshot_jax.writing.staging import replace_anything, staged_file

_INFO_FILE: Final = "dataset_info.json"
_SPLIT: Final = "train"
# Where `dataset_info.json` lies below what may be named: the output of a build, or a folder inside.
# Fixed names, since a search would walk through a million folders of samples.
_VERSION: Final = "[0-9]*.[0-9]*.[0-9]*"
_PLACES: Final = ("", _VERSION, f"default/{_VERSION}", f"hotshot_clips/default/{_VERSION}")
_OTHER_SPLITS: Final = f"splits other than {_SPLIT}"
_PIECE: Final = 1024
_FEATURES: Final = frozenset({"frames", "prompt", "name", "width", "height"})

_log = logging.getLogger(__name__)


def find_data_set(root: Path) -> Path | None:
    """The folder of the one data set in a folder that a build wrote; None if there is none.

    Raises:
        UsageError: there are several versions of it.
    """
    for place in _PLACES:
        found = sorted(root.glob(f"{place}/{_INFO_FILE}".lstrip("/")))
        if len(found) > 1:
            names = ", ".join(str(path.parent.relative_to(root)) for path in found)
            raise UsageError(f"`data_dir` {root} holds several data sets ({names}); name one.")
        if found:
            return found[0].parent
    return None


class RecordSource:
    """Clips in records. Opened anew in each process that it is sent to.

    Args:
        folder: that of `dataset_info.json`.

    Raises:
        HotshotError: it is no data set of clips, or is incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.table = read_table(folder) if _table_path(folder).exists() else write_table(folder)
        if len(self.table) != len(self._records):
            raise HotshotError(
                f"{_table_path(folder)} is of another data set: delete it, and it is made anew."
            )

    def __reduce__(self) -> tuple[type["RecordSource"], tuple[Path]]:
        return RecordSource, (self._folder,)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> EncodedClip:
        try:
            record = self._records[index]
        except (OSError, ValueError, RuntimeError, IndexError, AttributeError, KeyError) as error:
            raise HotshotError(f"{self._folder}: record {index} is damaged ({error})") from error
        name = record["name"].decode()
        pictures = [bytes(picture) for picture in record["frames"]]
        return EncodedClip(
            name=name,
            prompt=record["prompt"].decode(),
            pictures=pictures,
            picture_names=[f"{name} frame {number}" for number in range(len(pictures))],
            # Data sets of before do not tell.
            fps=float(record.get("fps", 0)) or None,
        )

    def left_out(self) -> tuple[LeftOut, ...]:
        """What the data set holds and is not read."""
        tally = Tally()
        for split in self._opened[1]:
            tally.add(_OTHER_SPLITS, split)
        return tally.left_out()

    @property
    def _records(self) -> Any:
        return self._opened[0]

    @cached_property
    def _opened(self) -> tuple[Any, Sequence[str]]:
        return _open(self._folder)


def read_table(folder: Path) -> ClipTable:
    """Map the table of sizes of a data set into memory.

    Raises:
        HotshotError: it is damaged.
    """
    path = _table_path(folder)
    try:
        check_plain(path)
        table = np.load(path, mmap_mode="r")
    # NumPy evaluates the header of the file as an expression.
    except Exception as error:
        raise HotshotError(f"{path} is damaged: delete it, and it is made anew.") from error
    if table.dtype != CLIP_DTYPE or table.ndim != 1:
        raise HotshotError(f"{path} is no table of clips: delete it, and it is made anew.")
    return table


def write_table(folder: Path) -> ClipTable:
    """Read the sizes of all clips of a data set once and keep them beside it.

    Returns:
        The table, also where it could not be kept because the data set cannot be written to.

    Raises:
        HotshotError: it is no data set of clips, or is damaged.
    """
    table = np.fromiter(_sizes(_open(folder)[0].data_source, folder), CLIP_DTYPE)
    path = _table_path(folder)
    try:
        with staged_file(path, may_replace=replace_anything) as staged, staged.open("wb") as file:
            np.save(file, table)
    except HotshotError as error:
        _log.warning("The sizes of the clips will be read again next time: %s", error)
    return table


def _sizes(records: Any, folder: Path) -> Iterator[tuple[int, int, int]]:
    from tensorflow_datasets.proto import tf_example_pb2

    largest = np.iinfo(np.uint16).max
    for start in range(0, len(records), _PIECE):
        piece = range(start, min(start + _PIECE, len(records)))
        try:
            serialized = records.__getitems__(list(piece))
        except (OSError, ValueError, RuntimeError) as error:
            raise HotshotError(
                f"{folder}: records {piece.start} to {piece.stop - 1} are damaged ({error})"
            ) from error
        for record in serialized:
            features = tf_example_pb2.Example.FromString(record).features.feature
            yield (
                min(features["width"].int64_list.value[0], largest),
                min(features["height"].int64_list.value[0], largest),
                len(features["frames"].bytes_list.value),
            )


def _table_path(folder: Path) -> Path:
    """Its name tells the lengths of the records' files, so that a stale table is not used."""
    files = sorted(
        (entry.name, entry.stat().st_size)
        for entry in os.scandir(folder)
        if ".array_record" in entry.name
    )
    key = hashlib.sha256(repr(files).encode()).hexdigest()[:16]
    return folder / f"clip_table-{key}.npy"


def _open(folder: Path) -> tuple[Any, Sequence[str]]:
    """The records, and the names of the splits that are not among them."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise HotshotError(
            "Reading a TFDS data set needs the training extra: pip install 'hotshot-jax[train]'"
        ) from error
    try:
        check_plain_folder(folder)
        builder = tfds.builder_from_directory(folder)
        missing = _FEATURES - set(builder.info.features)
        if missing:
            raise HotshotError(
                f"{folder} is no data set of clips: its records lack {', '.join(sorted(missing))}. "
                "Build one by python -m hotshot_jax.data.build."
            )
        others = sorted(set(builder.info.splits) - {_SPLIT})
        return builder.as_data_source(split=_SPLIT), others
    except HotshotError:
        raise
    except Exception as error:
        # TFDS and its readers raise errors of many classes, down to plain Exception.
        reason = str(error).strip().split("\n")[0]
        raise HotshotError(
            f"{folder} cannot be opened as a TFDS data set in array_record form: {reason}"
        ) from error
