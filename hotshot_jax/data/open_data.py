"""Opening whatever `data_dir` names: folders of frames, a TFDS data set, or drawn shapes."""

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.clip_source import (
    ClipSource,
    ClipTable,
    EncodedClip,
    OnBadSample,
    Problem,
    clip_table,
    refuse_or_skip,
)
from hotshot_jax.data.folders import Check, open_folders
from hotshot_jax.data.left_out import LeftOut
from hotshot_jax.data.mixing.data_place import SHAPES, parse_place
from hotshot_jax.data.origins import holds_prompt_files, holds_videos
from hotshot_jax.data.records import RecordSource, find_data_set
from hotshot_jax.data.shapes import DEFAULT_FRAMES, MOMENTS, PAINTS, SAYS, ShapesSource
from hotshot_jax.errors import UsageError

# Options that are words; the first is what is taken if none is given.
_WORDS: Final = {"moment": MOMENTS, "says": SAYS, "paint": PAINTS}


@dataclass(frozen=True)
class OpenedData:
    """A source that was checked.

    Attributes:
        source: the usable clips.
        kind: `folders`, `records` or `shapes`.
        total: number of samples, good and bad.
        problems: why samples were left out.
        left_out: what lies among the samples and is not read.
        remarks: what else is to be known.
    """

    source: ClipSource
    kind: str
    total: int
    problems: tuple[Problem, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class ShapesClips:
    """`ShapesSource` as a source of clips, drawn anew each time."""

    shapes: ShapesSource

    @property
    def table(self) -> ClipTable:
        """Size and number of frames of each clip; one row, however many clips."""
        size = self.shapes.size
        width, height = (size, size) if isinstance(size, int) else size
        row = clip_table([width], [height], [self.shapes.frames])
        return np.broadcast_to(row, (len(self.shapes),))

    def __len__(self) -> int:
        return len(self.shapes)

    def __getitem__(self, index: int) -> EncodedClip:
        sample = self.shapes[index]
        names = [f"shape {index} frame {frame}" for frame in range(self.shapes.frames)]
        # A clip lasts a second, however many frames it has.
        fps = float(self.shapes.frames)
        return EncodedClip(f"shape {index}", sample["prompt"], list(sample["frames"]), names, fps)


class SomeClips:
    """Some clips of a source.

    Args:
        source: all clips.
        indices: [kept], which of them, in order.
    """

    def __init__(self, source: ClipSource, indices: npt.NDArray[np.integer]) -> None:
        self._source = source
        self._indices = indices.astype(np.uint32)
        self.table = source.table[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> EncodedClip:
        return self._source[int(self._indices[index])]


def open_data(
    data_dir: str | os.PathLike[str],
    frames: int = 8,
    on_bad_sample: OnBadSample = "error",
    check: Check = "auto",
) -> OpenedData:
    """Open training data and check all of it.

    Args:
        data_dir: a place as `parse_place` reads it: a folder of samples, one that holds a TFDS data
            set of clips, or
            `shapes:SPLIT?length=N&seed=N&size=N&frames=N&moment=late`, which draws clips as they
            are needed; see `ShapesSource`.
        frames: that a clip must have at least.
        on_bad_sample: `error` raises when any sample is bad, `skip` leaves it out.
        check: how closely folders are looked at, see `open_folders`. Records were checked when they
            were built.

    Raises:
        UsageError: there is no such data.
        HotshotError: samples are bad; the message names every file of every one.
    """
    if frames < 1:
        raise UsageError(f"Clips of {frames} frames cannot be trained on.")
    data_dir = parse_place(data_dir).place
    if data_dir.startswith(SHAPES):
        shapes = parse_shapes(data_dir, frames)
        return OpenedData(ShapesClips(shapes), "shapes", len(shapes))
    root = Path(data_dir)
    data_set = find_data_set(root) if root.is_dir() else None
    if data_set is not None:
        return _open_records(data_set, frames, on_bad_sample)
    refuse_videos(root)
    source, scan = open_folders(root, frames, on_bad_sample, check)
    return OpenedData(source, "folders", scan.total, scan.problems, scan.left_out, scan.remarks)


def refuse_videos(root: Path) -> None:
    """Say what to do with a folder of videos.

    Raises:
        UsageError: it holds videos and no folders of frames.
    """
    if root.is_dir() and not holds_prompt_files(root) and holds_videos(root):
        raise UsageError(
            f"{root} holds videos. Build a data set from them first: "
            f"python -m hotshot_jax.data.build, with {root} as `source`."
        )


def _open_records(folder: Path, frames: int, on_bad_sample: OnBadSample) -> OpenedData:
    source = RecordSource(folder)
    short = np.flatnonzero(source.table["frames"] < frames)
    problems = []
    for index in short.tolist():
        name = source[index].name
        message = f"{name}: has {source.table['frames'][index]} frames, but {frames} are needed"
        problems.append(Problem(f"{index} {name}", message))
    refuse_or_skip(problems, len(source), str(folder), on_bad_sample)
    kept: ClipSource = source
    if problems:
        kept = SomeClips(source, np.flatnonzero(source.table["frames"] >= frames))
    if not len(source):
        raise UsageError(f"`data_dir` {folder} holds no clips.")
    return OpenedData(kept, "records", len(source), tuple(problems), source.left_out())


def parse_shapes(text: str, frames: int) -> ShapesSource:
    """The drawn shapes that a text names; see `open_data`.

    Args:
        text: `shapes:SPLIT?NAME=VALUE&...`.
        frames: that a clip must have at least.

    Raises:
        UsageError: an option is unknown or has a wrong value.
    """
    split, _, query = text.removeprefix(SHAPES).partition("?")
    allowed = {field.name for field in fields(ShapesSource)} - {"split"}
    try:
        given = dict(parse_qsl(query, strict_parsing=bool(query)))
        words = {name: given.pop(name, next(iter(_WORDS[name]))) for name in _WORDS}
        options = {name: int(value) for name, value in given.items()}
    except ValueError as error:
        raise UsageError(f"`data_dir` {text}: expected whole numbers, as in size=128.") from error
    unknown = sorted(set(options) - allowed)
    if unknown:
        raise UsageError(
            f"`data_dir` {text}: unknown {unknown[0]}; expected {', '.join(sorted(allowed))}."
        )
    for name, word in words.items():
        if word not in _WORDS[name]:
            raise UsageError(
                f"`data_dir` {text}: {name} is {word}; expected {', '.join(_WORDS[name])}."
            )
    source = ShapesSource(
        length=options.get("length", 100_000),
        seed=options.get("seed", 0),
        size=options.get("size", 128),
        # A clip lasts a second in any case; a loader that wants fewer frames chooses some.
        frames=options.get("frames", max(frames, DEFAULT_FRAMES)),
        split=split or "train",
        spins=options.get("spins", 1),
        **words,
    )
    if source.frames < frames:
        raise UsageError(
            f"`data_dir` {text}: frames is {source.frames}, but clips of {frames} are needed."
        )
    if source.length < 1 or source.spins < 1 or source.seed < 0:
        raise UsageError(
            f"`data_dir` {text}: length and spins must be positive and seed not negative."
        )
    return source
