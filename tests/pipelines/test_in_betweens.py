"""Frames between frames: where those of a clip lie, and what lies between them at first."""

import numpy as np
import pytest

from hotshot_jax.pipelines.in_betweens import blended, length_with_between, start_between


def levels(*values: int) -> np.ndarray:
    return np.stack([np.full((2, 2, 3), value, np.uint8) for value in values])


@pytest.mark.parametrize(
    ("between", "loop", "expected"),
    [
        (1, False, [10, 15, 20, 136, 251]),
        (1, True, [10, 15, 20, 136, 251, 130]),
        (3, False, [10, 12, 15, 18, 20, 78, 136, 193, 251]),
    ],
)
def test_blends_lie_between_the_frames(between: int, loop: bool, expected: list[int]) -> None:
    clip = levels(10, 20, 251)
    made = blended(clip, between, loop=loop)
    assert len(made) == length_with_between(3, between, loop=loop)
    np.testing.assert_array_equal(made[:, 0, 0, 0], expected)
    start = start_between(clip, between, loop=loop, strength=0.7, repaint=3)
    np.testing.assert_array_equal(start.video, made)
    assert (start.strength, start.repaint) == (0.7, 3)
    assert list(start.known_frames) == [0, between + 1, 2 * (between + 1)]
    np.testing.assert_array_equal(start.known_frames[between + 1], clip[1])
