import numpy as np
import numpy.typing as npt
import pytest


@pytest.fixture
def frames() -> npt.NDArray[np.uint8]:
    """Eight frames of 24x40 pixels: a gradient that drifts, in far more than 256 colours."""
    time, y, x = np.mgrid[0:8, 0:24, 0:40]
    red = 128 + 100 * np.sin(x / 10 + time / 3)
    green = 128 + 100 * np.cos(y / 8 + time / 4)
    blue = 128 + 90 * np.sin((x + y) / 12 - time / 5)
    return np.stack([red, green, blue], -1).astype(np.uint8)


@pytest.fixture
def equal_frames(frames) -> npt.NDArray[np.uint8]:
    """The first frame eight times, which encoders like to merge."""
    return np.repeat(frames[:1], 8, axis=0)
