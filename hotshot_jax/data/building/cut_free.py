"""Where key frames may be moved to, so that no other scene begins between them."""

from collections.abc import Iterator, Sequence
from typing import Final

# Kept beside the key frames, in case that these cross a cut: converting frames takes time.
_NEAR_STRIDES: Final = 3


def moves(chosen: Sequence[int], stretch: range) -> Iterator[int]:
    """By how much key frames can be moved within a stretch, least first, in whole strides."""
    stride = _stride(chosen)
    yield 0
    for move in range(stride, len(stretch), stride):
        if chosen[0] - move in stretch:
            yield -move
        if chosen[-1] + move in stretch:
            yield move


def near_moves(chosen: Sequence[int]) -> range:
    """The moves of a few strides in either direction."""
    stride = _stride(chosen)
    return range(-_NEAR_STRIDES * stride, _NEAR_STRIDES * stride + 1, stride)


def _stride(chosen: Sequence[int]) -> int:
    return chosen[1] - chosen[0] if len(chosen) > 1 else 1
