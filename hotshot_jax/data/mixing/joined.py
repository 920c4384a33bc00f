"""Several data sets opened as one."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from hotshot_jax.data.buckets import spanned_frames, stride_at
from hotshot_jax.data.clip_source import (
    ClipSource,
    EncodedClip,
    OnBadSample,
    Problem,
    refuse_or_skip,
)
from hotshot_jax.data.left_out import LeftOut
from hotshot_jax.data.mixing.data_place import DataPlace, parse_places
from hotshot_jax.data.mixing.mixed_plan import Part
from hotshot_jax.data.open_data import OpenedData, SomeClips, open_data
from hotshot_jax.errors import UsageError


@dataclasses.dataclass(frozen=True)
class JoinedData:
    """Data sets that were checked and joined.

    Attributes:
        opened: all of them, one after the other.
        mix: in which shares they are drawn from; None for one that is seen clip by clip.
    """

    opened: OpenedData
    mix: tuple[Part, ...] | None


class JoinedClips:
    """Clips of several sources, one after the other.

    Args:
        sources: at least one.
    """

    def __init__(self, sources: Sequence[ClipSource]) -> None:
        self._sources = sources
        self._ends = np.cumsum([len(source) for source in sources])
        self.table = np.concatenate([source.table for source in sources])

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> EncodedClip:
        place = int(np.searchsorted(self._ends, index, side="right"))
        before = int(self._ends[place - 1]) if place else 0
        return self._sources[place][index - before]


class PacedClips:
    """Clips of a source, of which somebody says how many frames a second they have.

    Args:
        source: of the clips.
        fps: frames a second.
    """

    def __init__(self, source: ClipSource, fps: float) -> None:
        self._source = source
        self._fps = fps
        self.table = source.table

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> EncodedClip:
        return dataclasses.replace(self._source[index], fps=self._fps)


def open_joined(
    texts: Sequence[str | os.PathLike[str]],
    frames: int = 8,
    stride: int = 1,
    fps: float | None = None,
    on_bad_sample: OnBadSample = "error",
) -> JoinedData:
    """Open training data and check all of it.

    Args:
        texts: places as `parse_place` reads them, at least one; each as `open_data` opens it.
        frames: of a clip.
        stride: from each of them to the next.
        fps: frames a second, in place of a stride.
        on_bad_sample: `error` raises when any sample is bad, `skip` leaves it out.

    Raises:
        UsageError: there is no such data, or an option makes no sense.
        HotshotError: samples are bad; the message names every file of every one.
    """
    places = parse_places([os.fspath(text) for text in texts])
    opened = []
    for place in places:
        one = _open(place, frames, stride, fps, on_bad_sample)
        opened.append(one if len(places) == 1 else _named(one, place))
    parts = tuple(place.part(len(each.source)) for place, each in zip(places, opened, strict=True))
    if len(parts) == 1:
        plain = parts[0].repeats == 1
        return JoinedData(opened[0], None if plain else parts)
    joined = OpenedData(
        JoinedClips([each.source for each in opened]),
        " and ".join(dict.fromkeys(each.kind for each in opened)),
        sum(each.total for each in opened),
        tuple(problem for each in opened for problem in each.problems),
        tuple(left_out for each in opened for left_out in each.left_out),
        tuple(remark for each in opened for remark in each.remarks),
    )
    return JoinedData(joined, parts)


def _named(opened: OpenedData, place: DataPlace) -> OpenedData:
    """The same with the place in what is said of it."""
    return dataclasses.replace(
        opened,
        problems=tuple(
            Problem(f"{place.place}: {each.sample}", f"{place.place}: {each.message}")
            for each in opened.problems
        ),
        left_out=tuple(
            LeftOut(f"{place.place}: {each.kind}", each.count, each.names)
            for each in opened.left_out
        ),
        remarks=tuple(f"{place.place}: {remark}" for remark in opened.remarks),
    )


def _open(
    place: DataPlace, frames: int, stride: int, fps: float | None, on_bad_sample: OnBadSample
) -> OpenedData:
    if fps is None or place.fps is not None:
        needed = spanned_frames(frames, stride_at(place.fps, fps, stride))
        opened = open_data(place.place, needed, on_bad_sample)
        if place.fps is None:
            return opened
        return dataclasses.replace(opened, source=PacedClips(opened.source, place.fps))
    opened = open_data(place.place, frames, on_bad_sample)
    return _long_enough(opened, place, frames, fps, on_bad_sample)


def _long_enough(
    opened: OpenedData, place: DataPlace, frames: int, fps: float, on_bad_sample: OnBadSample
) -> OpenedData:
    """Leaves out clips that have too few frames at the rate that they state themselves."""
    source, problems, kept = opened.source, [], []
    for index in range(len(source)):
        clip = source[index]
        if not clip.fps:
            raise UsageError(
                f"`fps` needs to know how many frames a second the clips of {place.text} have, "
                f"which do not say so: write {place.place}?fps=24, say."
            )
        needed = spanned_frames(frames, stride_at(clip.fps, fps, 1))
        if len(clip.pictures) < needed:
            message = f"{clip.name}: has {len(clip.pictures)} frames, but {needed} are needed"
            problems.append(Problem(f"{index} {clip.name}", message))
        else:
            kept.append(index)
    if not problems:
        return opened
    refuse_or_skip(problems, len(source), place.text, on_bad_sample)
    return dataclasses.replace(
        opened,
        source=SomeClips(source, np.array(kept)),
        problems=(*opened.problems, *problems),
    )
