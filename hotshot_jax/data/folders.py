"""Training clips as folders: SAMPLE/0.jpg … SAMPLE/n.jpg and SAMPLE/prompt.txt.

The prompt may also be a prompt.caption or prompt.json, or a row about SAMPLE in a table beside the
samples; see `captions`.

Frames are taken in natural order (2 before 10), whatever order the file system lists them in; which
pictures are frames, `frame_names` tells.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.captions import (
    Row,
    is_table,
    matched_rows,
    read_table,
)
from hotshot_jax.data.clip_source import (
    PICTURE_ENDINGS,
    ClipTable,
    EncodedClip,
    OnBadSample,
    Problem,
    clip_table,
    picture_size,
    read_picture,
    refuse_or_skip,
)
from hotshot_jax.data.folder_prompts import PROMPT_FILE, join, prompt_files, read_prompt
from hotshot_jax.data.frame_names import GAPS, is_numbered, sort_out_frames
from hotshot_jax.data.left_out import SEEN_BEFORE, LeftOut, Tally, kind_of_file, listed
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.reading.read import natural_order

Check = Literal["auto", "headers", "decode"]

# Up to here every picture is decoded before training: half a minute on two cores.
_DECODE_UP_TO: Final = 10_000
_OF_NO_SAMPLE: Final = "pictures beside folders of frames"
UNUSED_ROWS: Final = "captions in tables whose sample is not there"
_EXPECTED: Final = f"expected folders SAMPLE with frames 0.jpg, 1.jpg, … and a {PROMPT_FILE}"


@dataclass(frozen=True)
class FolderScan:
    """What was found under a data folder.

    Attributes:
        names: usable samples, relative to the folder.
        table: their sizes and numbers of frames.
        problems: every reason why another sample cannot be used.
        total: number of samples, good and bad.
        left_out: what lies there and is not read.
        remarks: what else is to be known.
        decoded: whether all pictures were decoded, or only their headers read.
        rows: captions in tables, by sample.
    """

    names: tuple[str, ...]
    table: ClipTable
    problems: tuple[Problem, ...]
    total: int
    left_out: tuple[LeftOut, ...]
    remarks: tuple[str, ...]
    decoded: bool
    rows: Mapping[str, Sequence[Row]]


@dataclass(frozen=True)
class FolderNames:
    """The samples under a folder.

    Attributes:
        names: of all, good or bad, relative to the folder and in natural order.
        left_out: what else lies there.
        rows: captions in tables, by sample.
    """

    names: list[str]
    left_out: tuple[LeftOut, ...]
    rows: Mapping[str, Sequence[Row]]


class FolderSource:
    """Clips in folders. Holds some bytes of name and six of size for each, and no file open.

    Args:
        root: the data folder.
        names: of the samples, relative to it.
        table: their sizes and numbers of frames.
        rows: captions in tables, by sample.
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        table: ClipTable,
        rows: Mapping[str, Sequence[Row]] | None = None,
    ) -> None:
        encoded = [os.fsencode(name) for name in names]
        self._root = root
        self._rows = rows or {}
        # One long string rather than a million small ones, which cost 60 bytes each.
        self._names = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self.table = table

    def __len__(self) -> int:
        return len(self.table)

    def name(self, index: int) -> str:
        """The folder of a sample, relative to the data folder."""
        start = int(self._ends[index - 1]) if index else 0
        return os.fsdecode(self._names[start : int(self._ends[index])])

    def __getitem__(self, index: int) -> EncodedClip:
        name = self.name(index)
        folder = self._root / name
        try:
            files = picture_files(folder)
        except OSError as error:
            raise HotshotError(f"{name}: cannot be read: {error.strerror or error}") from error
        return EncodedClip(
            name=name,
            prompt=read_prompt(folder, name, self._rows.get(name, ())),
            pictures=files,
            picture_names=[join(name, file.name) for file in files],
        )


def open_folders(
    root: str | os.PathLike[str],
    frames: int,
    on_bad_sample: OnBadSample = "error",
    check: Check = "auto",
) -> tuple[FolderSource, FolderScan]:
    """Check all samples under a folder and open it as a source.

    Args:
        root: the data folder.
        frames: number of frames that a sample must have at least.
        on_bad_sample: `error` raises when any sample is bad, `skip` leaves it out.
        check: `headers` reads the size of each picture, `decode` decodes it, `auto` decodes if
            there are few enough.

    Raises:
        UsageError: the folder is missing, a file, or holds no samples.
        HotshotError: samples are bad; the message names every file of every one.
    """
    scan = scan_folders(root, frames, check)
    refuse_or_skip(scan.problems, scan.total, os.fspath(root), on_bad_sample)
    return FolderSource(Path(root), scan.names, scan.table, scan.rows), scan


def scan_folders(root: str | os.PathLike[str], frames: int, check: Check = "auto") -> FolderScan:
    """Check all samples under a folder; arguments as in `open_folders`.

    Raises:
        UsageError: the folder is missing, a file, or holds no samples.
    """
    folder = Path(root)
    found = sample_names(folder)
    names = found.names
    decode = check == "decode" or (check == "auto" and len(names) * frames <= _DECODE_UP_TO)
    sizes = np.zeros((len(names), 3), np.int32)
    problems: list[Problem] = []
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        checked = pool.map(
            lambda name: check_sample(folder, name, frames, decode, found.rows.get(name, ())), names
        )
        for index, (size, messages) in enumerate(checked):
            sizes[index] = size
            problems += [Problem(names[index], message) for message in messages]
    remarks = (
        "so many pictures were not decoded, only their headers read; "
        "python -m hotshot_jax.data.inspect decodes them all"
    )
    bad = {problem.sample for problem in problems}
    good = np.array([name not in bad for name in names])
    return FolderScan(
        names=tuple(name for name in names if name not in bad),
        table=clip_table(*sizes[good].T),
        problems=tuple(problems),
        total=len(names),
        left_out=found.left_out,
        remarks=(remarks,) if check == "auto" and not decode else (),
        decoded=decode,
        rows=found.rows,
    )


def sample_names(root: Path) -> FolderNames:
    """All samples under a folder.

    Raises:
        UsageError: the folder is missing, a file, unreadable, or holds no samples.
        HotshotError: a table of captions is none.
    """
    if not root.exists():
        raise UsageError(f"{root} does not exist; {_EXPECTED}.")
    if not root.is_dir():
        raise UsageError(f"{root} is not a folder; {_EXPECTED}.")
    tally = Tally()
    try:
        found = [os.path.relpath(path, root) for path in _sample_folders(root, tally)]
        tables = sorted(name for name in os.listdir(root) if is_table(name))
    except OSError as error:
        raise UsageError(
            f"{error.filename or root} cannot be read: {error.strerror or error}."
        ) from error
    if not found:
        raise UsageError(f"{root} holds no samples; {_EXPECTED}.{listed(tally.left_out())}")
    names = sorted(found, key=lambda name: (natural_order(Path(name)), name))
    rows: dict[str, list[Row]] = {}
    for table in tables:
        matched, unused = matched_rows(read_table(root / table, table), "", root, set(names), {})
        for name, its in matched.items():
            rows.setdefault(name, []).extend(its)
        for row in unused:
            tally.add(UNUSED_ROWS, f"{row.label}: {row.name}")
    return FolderNames(names, tally.left_out(), rows)


def picture_files(folder: Path) -> list[Path]:
    """The frames in a sample's folder in natural order.

    Raises:
        OSError: the folder cannot be read.
    """
    pictures = [entry.name for entry in os.scandir(folder) if _is_picture(entry)]
    return [folder / name for name in sort_out_frames(pictures).frames]


def _sample_folders(root: Path, tally: Tally) -> Iterator[Path]:
    """All folders that hold a frame or a prompt, and those with nothing in them, at any depth."""
    seen: set[tuple[int, int]] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        name = os.path.relpath(folder, root)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in seen:
            tally.add(SEEN_BEFORE, name)
            continue
        seen.add((status.st_dev, status.st_ino))
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        inner = [
            Path(entry.path)
            for entry in entries
            if _is_folder(entry) and not entry.name.startswith(".")
        ]
        # Depth first and in order of name, so that of two links to one folder the first is kept.
        waiting += reversed(inner)
        pictures = [entry.name for entry in entries if _is_picture(entry)]
        prompts = prompt_files(entry.name for entry in entries if not _is_folder(entry))
        # Beside folders, pictures with neither prompt nor number are previews and the like.
        is_sample = (
            len(prompts) > 0 or any(map(is_numbered, pictures)) or (len(pictures) > 0 and not inner)
        )
        read = {*pictures, *(path.name for path in inner), *prompts}
        if folder == root:
            read |= {entry.name for entry in entries if is_table(entry.name)}
        for entry in entries:
            if entry.name not in read:
                tally.add(kind_of_file(entry.name, PICTURE_ENDINGS), join(name, entry.name))
        _tell_of_pictures(name, pictures, is_sample, tally)
        if is_sample or (not inner and folder != root):
            yield folder


def _tell_of_pictures(sample: str, pictures: Sequence[str], is_sample: bool, tally: Tally) -> None:
    if not is_sample:
        for picture in pictures:
            tally.add(_OF_NO_SAMPLE, join(sample, picture))
        return
    sorted_out = sort_out_frames(pictures)
    for kind, picture in sorted_out.others:
        tally.add(kind, join(sample, picture))
    if sorted_out.missing is not None:
        tally.add(GAPS, f"{sample}: no {sorted_out.missing}")


def _is_picture(entry: os.DirEntry[str]) -> bool:
    return (
        entry.name.lower().endswith(PICTURE_ENDINGS)
        and not entry.name.startswith(".")
        and not _is_folder(entry)
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        # A link that leads to itself: as a frame it is told to be unreadable.
        return False


def check_sample(
    root: Path,
    name: str,
    frames: int,
    decode: bool,
    rows: Sequence[Row] = (),
    see: Callable[[npt.NDArray[np.uint8]], object] = id,
) -> tuple[tuple[int, int, int], list[str]]:
    """(width, height, frames) of a sample, and everything that is wrong with it.

    Args:
        root: the data folder.
        name: the sample, relative to it.
        frames: that it must have at least.
        decode: decode all pictures rather than read their headers.
        rows: that tables of captions have for it.
        see: is shown each picture that is decoded.
    """
    folder = root / name
    messages = []
    try:
        read_prompt(folder, name, rows)
    except HotshotError as error:
        messages.append(str(error))
    try:
        files = picture_files(folder)
    except OSError as error:
        return (0, 0, 0), [f"{name}: cannot be read: {error.strerror or error}"]
    if len(files) < frames:
        messages.append(f"{name}: has {len(files)} frames, but {frames} are needed")
    sizes: dict[tuple[int, int], str] = {}
    for file in files:
        label = join(name, file.name)
        try:
            size = picture_size(file, label)
            if decode:
                see(read_picture(file, label))
            sizes.setdefault(size, label)
        except HotshotError as error:
            messages.append(str(error))
    if len(sizes) > 1:
        (first_size, first), *others = sizes.items()
        messages += [
            f"{label}: is {size[0]}x{size[1]} pixels, but {Path(first).name} is "
            f"{first_size[0]}x{first_size[1]}; all frames of a sample must have one size"
            for size, label in islice(others, 3)
        ]
    width, height = next(iter(sizes), (0, 0))
    return (width, height, len(files)), messages
