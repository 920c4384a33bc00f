"""Which pictures in a sample's folder are its frames, told by their names."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from hotshot_jax.data.clip_source import PICTURE_ENDINGS
from hotshot_jax.media.reading.read import natural_order

UNNUMBERED: Final = "pictures that are not named as the frames beside them"
SAME_NUMBER: Final = "pictures with the number of another frame"
GAPS: Final = "samples whose frames have gaps in their numbers"

_NUMBER: Final = re.compile(r"[0-9]+")
_PLAIN: Final = "#"


@dataclass(frozen=True)
class FrameNames:
    """The pictures of a folder, sorted out.

    Attributes:
        frames: names of the frames, in natural order.
        others: (kind, name) of the pictures that are none.
        missing: the first number that the frames leave out; None if they are evenly numbered.
    """

    frames: tuple[str, ...]
    others: tuple[tuple[str, str], ...]
    missing: int | None


def sort_out_frames(pictures: Iterable[str]) -> FrameNames:
    """Tells frames from other pictures, such as a preview or a second copy in another format.

    Frames are those that are named by their number alone; where there are none, those of more than
    half of the pictures that have names alike but for their numbers; where there are none either,
    all pictures. Of two pictures with one number, that in the commoner format counts.

    Args:
        pictures: names of all pictures of the folder.
    """
    names = sorted(pictures, key=_order)
    shapes = [_shape(name) for name in names]
    shape = _PLAIN if _PLAIN in shapes else _shape_of_most(shapes)
    if shape is None:
        return FrameNames(tuple(names), (), None)
    alike = [name for name, each in zip(names, shapes, strict=True) if each == shape]
    frames = _one_for_each_number(alike)
    kept, numbered = set(frames), set(alike)
    others = [
        (SAME_NUMBER if name in numbered else UNNUMBERED, name)
        for name in names
        if name not in kept
    ]
    return FrameNames(
        frames=tuple(frames),
        others=tuple(others),
        missing=_first_missing([_numbers(name)[-1] for name in frames]) if _single(shape) else None,
    )


def is_numbered(name: str) -> bool:
    """Whether a picture is named by its number alone, as 7.jpg is."""
    return _shape(name) == _PLAIN


def _one_for_each_number(names: Sequence[str]) -> list[str]:
    endings = Counter(_ending(name) for name in names)
    chosen: dict[tuple[int, ...], str] = {}
    for name in sorted(names, key=lambda name: (-endings[_ending(name)], _rank(name))):
        chosen.setdefault(_numbers(name), name)
    return sorted(chosen.values(), key=_order)


def _first_missing(numbers: Sequence[int]) -> int | None:
    strides = [later - earlier for earlier, later in pairwise(numbers)]
    for number, stride in zip(numbers, strides, strict=False):
        if stride > min(strides):
            return number + min(strides)
    return None


def _shape_of_most(shapes: Sequence[str]) -> str | None:
    counted = [(count, shape) for shape, count in Counter(shapes).items() if _PLAIN in shape]
    count, shape = max(counted, default=(0, ""))
    return shape if 2 * count > len(shapes) else None


def _single(shape: str) -> bool:
    return shape.count(_PLAIN) == 1


def _shape(name: str) -> str:
    """The name without its ending, with # for each number."""
    return _NUMBER.sub(_PLAIN, Path(name).stem.lower().replace(_PLAIN, " "))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(int(number) for number in _NUMBER.findall(Path(name).stem))


def _ending(name: str) -> str:
    return Path(name).suffix.lower()


def _rank(name: str) -> tuple[int, str]:
    return PICTURE_ENDINGS.index(_ending(name)), name


def _order(name: str) -> tuple[list[tuple[int, int, str]], str]:
    return natural_order(Path(name)), name
