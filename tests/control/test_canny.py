"""Edges: where they must be, what the thresholds do, and what is refused."""

import sys

import numpy as np
import pytest

from hotshot_jax.conditioning.control.preprocess import canny_edges, check_thresholds
from hotshot_jax.errors import HotshotError, UsageError


def moving_square(contrast: int = 200) -> np.ndarray:
    """Three frames of 48 x 64 with a square of 20 pixels that moves 8 pixels a frame."""
    frames = np.full((3, 48, 64, 3), 20, np.uint8)
    for index, frame in enumerate(frames):
        left = 8 + 8 * index
        frame[14:34, left : left + 20, 0] = 20 + contrast
    return frames


def test_edges_outline_the_square_and_follow_it() -> None:
    edges = canny_edges(moving_square())
    assert edges.shape == (3, 48, 64, 3)
    assert edges.dtype == np.uint8
    assert set(np.unique(edges)) == {0, 255}
    for index, frame in enumerate(edges):
        assert (frame[..., :1] == frame).all()
        rows, columns = np.nonzero(frame[..., 0])
        left = 8 + 8 * index
        # An edge lies on either side of the step, at most a pixel away.
        assert 13 <= rows.min() <= 14
        assert 33 <= rows.max() <= 34
        assert left - 1 <= columns.min() <= left
        assert left + 19 <= columns.max() <= left + 20
        assert not frame[17:31, left + 3 : left + 17].any()
        assert 60 <= len(rows) <= 100


def test_thresholds_decide_what_counts() -> None:
    # A step of height c has a Sobel gradient of 4 c: 120 here, between the default thresholds.
    faint = moving_square(contrast=30)
    assert not canny_edges(faint).any()
    assert canny_edges(faint, low_threshold=50, high_threshold=100).any()


def test_strided_frames_are_taken() -> None:
    frames = moving_square()
    np.testing.assert_array_equal(
        canny_edges(frames[:, :, ::-1]), canny_edges(frames[:, :, ::-1].copy())
    )


@pytest.mark.parametrize(
    ("low", "high", "flag"),
    [
        (-1, 200, "`canny_low_threshold` is -1"),
        (float("nan"), 200, "`canny_low_threshold` is nan"),
        (100, float("inf"), "`canny_high_threshold` is inf"),
        (200, 100, "the low one must be smaller"),
        (100, 100, "the low one must be smaller"),
    ],
)
def test_bad_thresholds_are_refused(low: float, high: float, flag: str) -> None:
    with pytest.raises(UsageError, match=flag):
        check_thresholds(low, high)
    with pytest.raises(UsageError, match=flag):
        canny_edges(moving_square(), low_threshold=low, high_threshold=high)


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(HotshotError, match=r"pip install 'hotshot-jax\[control\]'") as caught:
        canny_edges(moving_square())
    assert len(str(caught.value).splitlines()) <= 2
    assert caught.value.exit_status == 1
