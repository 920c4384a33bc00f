"""A clip that was opened but not yet decoded."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import (
    MOST_DECODED_PIXELS,
    MOST_KEPT_PIXELS,
    MOST_PIXELS_A_SIDE,
    MOST_VIDEO_PIXELS,
)

# Each part is found from the file's beginning, so that a few large ones are read fastest.
_STREAMED_PIXELS = 64_000_000


@dataclass(frozen=True)
class ReadLimits:
    """How large a clip may be before it is refused."""

    most_frames: int = 10_000
    most_pixels_a_side: int = MOST_PIXELS_A_SIDE
    most_pixels: int = MOST_DECODED_PIXELS
    most_video_pixels: int = MOST_VIDEO_PIXELS
    most_kept_pixels: int = MOST_KEPT_PIXELS

    def check_size(self, path: Path, width: int, height: int) -> None:
        """Raise HotshotError if a side is too long or there are no pixels at all."""
        if min(width, height) < 1:
            raise HotshotError(f"{path} has no pixels: it is {width}x{height}.")
        if max(width, height) > self.most_pixels_a_side:
            raise HotshotError(
                f"{path} is {width}x{height} pixels large; at most {self.most_pixels_a_side} a "
                "side can be read. Make it smaller first."
            )

    def check_count(self, path: Path, count: int) -> None:
        """Raise HotshotError if there are too many frames; `count` may stop one above the limit."""
        if count > self.most_frames:
            raise HotshotError(
                f"{path} has more than {self.most_frames} frames. Cut the part that you want first."
            )

    def check_pixels(self, path: Path, pixels: int, most: int) -> None:
        """Raise HotshotError if there are too many pixels in all frames together."""
        if pixels > most:
            raise HotshotError(
                f"{path} has {pixels / 1e6:.0f} million pixels in its frames; at most "
                f"{most / 1e6:.0f} million can be read. Make it smaller, or cut the part that you "
                "want first."
            )


@dataclass(frozen=True)
class Clip:
    """A clip on disk. Only the frames asked for are decoded, since a film fits into no memory.

    `durations_ms` has one entry a frame, 0 where the file states no time. `is_picture` marks a
    single picture, which may be held still, unlike an animation that happens to have one frame.
    """

    path: Path
    width: int
    height: int
    durations_ms: tuple[float, ...]
    is_picture: bool
    decode: Callable[[Sequence[int]], Iterable[npt.NDArray[np.uint8]]]

    def frames(self, indices: Sequence[int]) -> npt.NDArray[np.uint8]:
        """Decode frames by their indices, in any order and with repeats.

        Transparent parts are shown on white.

        Returns:
            uint8 [len(indices), height, width, 3].

        Raises:
            HotshotError: the file is cut short or damaged.
            IndexError: there is no such frame.
        """
        wanted = sorted(set(indices))
        if wanted and not 0 <= wanted[0] <= wanted[-1] < len(self.durations_ms):
            raise IndexError(
                f"{self.path} has {len(self.durations_ms)} frames, not frames {wanted}"
            )
        shape = (self.height, self.width, 3)
        limits = ReadLimits()
        limits.check_pixels(
            self.path, len(indices) * self.height * self.width, limits.most_kept_pixels
        )
        frames = np.empty((len(indices), *shape), np.uint8)
        positions = np.asarray(indices)
        for index, frame in zip(wanted, self.decode(wanted) if wanted else [], strict=True):
            if frame.shape != shape:
                raise HotshotError(
                    f"{self.path} has frames of unequal size, such as frame {index}."
                )
            frames[positions == index] = frame
        return frames

    def stream(self) -> Iterator[npt.NDArray[np.uint8]]:
        """Decode all frames in their order, some at a time.

        Yields:
            uint8 [height, width, 3].

        Raises:
            HotshotError: as `frames`.
        """
        count = len(self.durations_ms)
        at_once = max(1, _STREAMED_PIXELS // (self.height * self.width))
        for start in range(0, count, at_once):
            yield from self.frames(range(start, min(start + at_once, count)))
