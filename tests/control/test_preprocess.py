"""Which control frames are made, and which are taken as they are."""

import numpy as np
import pytest

from hotshot_jax.conditioning.control.preprocess import (
    Preprocessing,
    canny_edges,
    make_control_frames,
)
from hotshot_jax.errors import UsageError


@pytest.fixture
def frames() -> np.ndarray:
    frames = np.zeros((2, 32, 32, 3), np.uint8)
    frames[:, 8:24, 8:24] = 30
    return frames


def test_canny_is_made_with_the_thresholds(frames: np.ndarray) -> None:
    assert not make_control_frames(frames, "canny", Preprocessing()).any()
    low = Preprocessing(canny_low_threshold=20, canny_high_threshold=60)
    made = make_control_frames(frames, "canny", low)
    assert made.any()
    np.testing.assert_array_equal(made, canny_edges(frames, low_threshold=20, high_threshold=60))


@pytest.mark.parametrize("control_type", ["canny", "depth"])
def test_none_takes_the_frames_as_they_are(frames: np.ndarray, control_type: str) -> None:
    assert make_control_frames(frames, control_type, Preprocessing(mode="none")) is frames


def test_ready_made_frames_of_another_kind_are_kept(frames: np.ndarray) -> None:
    assert make_control_frames(frames, None, Preprocessing()) is frames


def test_unknown_kinds_are_refused(frames: np.ndarray) -> None:
    with pytest.raises(UsageError, match="`control_type` is 'pose'; expected depth or canny"):
        make_control_frames(frames, "pose", Preprocessing())
    with pytest.raises(UsageError, match="`control_preprocess` is 'yes'; expected auto or none"):
        Preprocessing(mode="yes")
    with pytest.raises(UsageError, match="`canny_low_threshold`"):
        Preprocessing(canny_low_threshold=-3)
