"""Edges of a video's frames (Canny, 1986, https://doi.org/10.1109/TPAMI.1986.4767851)."""

import math

import numpy as np
import numpy.typing as npt

from hotshot_jax.choices import HIGH_THRESHOLD, LOW_THRESHOLD
from hotshot_jax.conditioning.control.optional import require
from hotshot_jax.errors import UsageError


def canny_edges(
    frames: npt.NDArray[np.uint8],
    *,
    low_threshold: float = LOW_THRESHOLD,
    high_threshold: float = HIGH_THRESHOLD,
) -> npt.NDArray[np.uint8]:
    """Draws the edges of each frame, white on black.

    Args:
        frames: uint8 `[frames, height, width, 3]`, RGB; a pixel's gradient is that of the colour
            where it is steepest.
        low_threshold: gradient from which a pixel joins an edge that it touches.
        high_threshold: gradient from which a pixel is an edge by itself.

    Returns:
        uint8 `[frames, height, width, 3]`, every value 0 or 255.

    Raises:
        UsageError: the thresholds are not two rising numbers from 0 on.
        HotshotError: OpenCV is not installed.
    """
    check_thresholds(low_threshold, high_threshold)
    cv2 = require("cv2", extra="control", purpose="Finding edges")
    edges = [
        cv2.Canny(np.ascontiguousarray(frame), low_threshold, high_threshold) for frame in frames
    ]
    return np.repeat(np.stack(edges)[..., None], 3, axis=-1)


def check_thresholds(low_threshold: float, high_threshold: float) -> None:
    """Checks the two thresholds.

    Raises:
        UsageError: they are not two rising numbers from 0 on.
    """
    for name, value in (
        ("`canny_low_threshold`", low_threshold),
        ("`canny_high_threshold`", high_threshold),
    ):
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} is {value:g}; expected a number from 0 on, such as 100.")
    if low_threshold >= high_threshold:
        raise UsageError(
            f"`canny_low_threshold` is {low_threshold:g} and `canny_high_threshold` "
            f"{high_threshold:g}; the low one must be smaller."
        )
