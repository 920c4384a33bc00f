"""One clip by itself: how its frames differ, whether it closes, flickers, drifts or stands."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class ClipMeasures:
    """What the frames of a clip tell. Levels are those of 8-bit pixels, 0 to 255.

    Attributes:
        width: pixels.
        height: pixels.
        differences: mean absolute difference of each frame to the next, over pixels and channels,
            in levels; one less than there are frames.
        loop_difference: the same from the last frame to the first.
        mean_colours: mean red, green and blue of each frame, in levels.
        colours: how many different colours each frame holds; in a GIF, at most 256.
        duplicates: frames that equal the one before them.
    """

    width: int
    height: int
    differences: tuple[float, ...]
    loop_difference: float
    mean_colours: tuple[tuple[float, float, float], ...]
    colours: tuple[int, ...]
    duplicates: tuple[int, ...]

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.colours)

    @property
    def loop_gap(self) -> float:
        """How far the last frame is from the first, over the largest step between neighbours.

        Up to 1 the clip closes as smoothly as it moves; 0 where nothing moves.
        """
        largest = max(self.differences)
        return self.loop_difference / largest if largest else 0.0

    @property
    def last_equals_first(self) -> bool:
        """Whether a player that repeats the clip shows that frame twice."""
        return self.loop_difference == 0

    @property
    def mean_difference(self) -> float:
        """Mean of `differences`."""
        return float(np.mean(self.differences))

    @property
    def flicker(self) -> float:
        """Temporal flickering as VBench scores it: (255 - `mean_difference`) / 255; 1 is still.

        It is meant for scenes that should not move (https://github.com/Vchitect/VBench).
        """
        return (255.0 - self.mean_difference) / 255.0

    @property
    def colour_drift(self) -> tuple[float, ...]:
        """How far each frame's mean colour is from that of the first: mean over the channels of
        the absolute difference, in levels.
        """
        means = np.asarray(self.mean_colours)
        return tuple(np.abs(means - means[0]).mean(axis=1).tolist())


def measure_frames(frames: Iterable[Frame]) -> ClipMeasures:
    """Measure a clip, holding three of its frames at a time.

    Args:
        frames: uint8 `[frames, height, width, 3]`, or as many `[height, width, 3]` one by one.

    Raises:
        ValueError: there are fewer than two frames, or one has another shape or dtype.
    """
    differences: list[float] = []
    means: list[tuple[float, float, float]] = []
    colours: list[int] = []
    first: Frame | None = None
    before: Frame | None = None
    for frame in frames:
        first = frame if first is None else first
        check_frame(frame, first)
        if before is not None:
            differences.append(mean_absolute_difference(before, frame))
        red, green, blue = frame.mean(axis=(0, 1), dtype=np.float64).tolist()
        means.append((red, green, blue))
        colours.append(_count_colours(frame))
        before = frame
    if first is None or before is None or not differences:
        raise ValueError(f"{len(means)} frames; at least two are needed to tell a difference")
    return ClipMeasures(
        width=first.shape[1],
        height=first.shape[0],
        differences=tuple(differences),
        loop_difference=mean_absolute_difference(before, first),
        mean_colours=tuple(means),
        colours=tuple(colours),
        duplicates=tuple(index + 1 for index, step in enumerate(differences) if step == 0),
    )


def mean_absolute_difference(one: Frame, other: Frame) -> float:
    """Mean over pixels and channels of |one - other|, in levels, for uint8 of one shape."""
    return float((np.maximum(one, other) - np.minimum(one, other)).mean(dtype=np.float64))


def check_frame(frame: Frame, like: Frame) -> None:
    """Check that a frame is of pixels, and as large as another.

    Raises:
        ValueError: it is not uint8 `[height, width, 3]`, or has another size.
    """
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or frame.size == 0:
        raise ValueError(
            f"a frame is {frame.dtype} {list(frame.shape)}; it must be uint8 [height, width, 3]"
        )
    if frame.shape != like.shape:
        raise ValueError(f"frames of {list(frame.shape)} and {list(like.shape)} pixels differ")


def _count_colours(frame: Frame) -> int:
    red, green, blue = np.moveaxis(frame.astype(np.uint32), -1, 0)
    # Sorting the pixels takes ten times as long.
    seen = np.zeros(2**24, np.bool_)
    seen[red << 16 | green << 8 | blue] = True
    return int(np.count_nonzero(seen))
