"""Frames that wait on disk, so that a long clip takes no more memory than a short one."""

import tempfile
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

# Frames of a short clip need no file.
_MOST_IN_MEMORY = 4 << 20


class StoredFrames:
    """Frames of one size, read like a uint8 array `[frames, height, width, 3]`.

    Args:
        height: in pixels.
        width: in pixels.
    """

    dtype = np.dtype(np.uint8)
    ndim = 4

    def __init__(self, height: int, width: int):
        self._file = tempfile.SpooledTemporaryFile(max_size=_MOST_IN_MEMORY)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._frame_shape = (height, width, 3)
        self._order: list[int] = []
        self._made_of: StoredFrames | None = None

    def append(self, frames: npt.NDArray[np.uint8]) -> None:
        """Adds frames at the end.

        Args:
            frames: uint8 `[frames, height, width, 3]`.

        Raises:
            OSError: the disk is full.
        """
        self._file.seek(len(self._order) * self._frame_bytes)
        self._file.write(np.ascontiguousarray(frames).data)
        self._order += range(len(self._order), len(self._order) + len(frames))

    def in_order(self, indices: Sequence[int]) -> "StoredFrames":
        """The same frames in another order, which may hold some twice. Nothing is copied."""
        other = object.__new__(StoredFrames)
        # What it is made of closes the file when nothing holds it any more.
        other._made_of = self
        other._file, other._frame_shape = self._file, self._frame_shape
        other._order = [self._order[index] for index in indices]
        return other

    def back_and_forth(self) -> "StoredFrames":
        """Forwards, then backwards, without doubled ends."""
        count = len(self)
        return self.in_order([*range(count), *range(count - 2, 0, -1)])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As an array's."""
        return (len(self), *self._frame_shape)

    @property
    def size(self) -> int:
        """As an array's."""
        return len(self) * self._frame_bytes

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> npt.NDArray[np.uint8]:
        if isinstance(index, slice):
            return np.stack([self._read(each) for each in self._order[index]])
        return self._read(self._order[index])

    def __iter__(self) -> Iterator[npt.NDArray[np.uint8]]:
        return map(self._read, self._order)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.asarray(self[:], dtype)

    @property
    def _frame_bytes(self) -> int:
        height, width, channels = self._frame_shape
        return height * width * channels

    def _read(self, place: int) -> npt.NDArray[np.uint8]:
        self._file.seek(place * self._frame_bytes)
        data = self._file.read(self._frame_bytes)
        return np.frombuffer(data, np.uint8).reshape(self._frame_shape)


Frames = npt.NDArray[np.uint8] | StoredFrames
"""uint8 `[frames, height, width, 3]`."""
