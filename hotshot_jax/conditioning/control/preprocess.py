"""Making control frames of a kind from the frames of a video.

Edges are those of Canny, 1986, https://doi.org/10.1109/TPAMI.1986.4767851.
"""

import dataclasses
import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.choices import (
    CONTROL_TYPES,
    DEPTH_CHECKPOINT,
    HIGH_THRESHOLD,
    LOW_THRESHOLD,
    PREPROCESSING,
)
from hotshot_jax.conditioning.control.depth import DepthEstimator, require
from hotshot_jax.errors import HotshotError, UsageError


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


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How control frames are made.

    Attributes:
        mode: "auto" makes them from the video, "none" takes its frames as they are.
        canny_low_threshold: see `canny_edges`.
        canny_high_threshold: see `canny_edges`.
        depth_checkpoint: folder or Hub id of a depth-estimation checkpoint.
    """

    mode: str = "auto"
    canny_low_threshold: float = LOW_THRESHOLD
    canny_high_threshold: float = HIGH_THRESHOLD
    depth_checkpoint: str = DEPTH_CHECKPOINT

    def __post_init__(self) -> None:
        if self.mode not in PREPROCESSING:
            raise UsageError(
                f"`control_preprocess` is {self.mode!r}; expected {' or '.join(PREPROCESSING)}."
            )
        check_thresholds(self.canny_low_threshold, self.canny_high_threshold)


def check_available(control_type: str | None, preprocessing: Preprocessing) -> None:
    """Checks that what makes control frames of a kind is installed, before anything is loaded.

    Raises:
        HotshotError: it is not; the message names the extra.
    """
    if preprocessing.mode == "none":
        return
    if control_type == "canny":
        require("cv2", extra="control", purpose="Finding edges")
    if control_type == "depth":
        require("torch", extra="depth", purpose="Estimating depth")


def make_control_frames(
    frames: npt.NDArray[np.uint8], control_type: str | None, preprocessing: Preprocessing
) -> npt.NDArray[np.uint8]:
    """Makes control frames of a kind.

    Args:
        frames: uint8 `[frames, height, width, 3]`, RGB.
        control_type: "depth" or "canny"; None for a ControlNet of another kind, whose control
            frames have to come ready-made.
        preprocessing: how to make them.

    Returns:
        uint8 of the same shape.

    Raises:
        UsageError: the kind is unknown.
        HotshotError: what is needed to make them is not installed or cannot be loaded.
    """
    if control_type is not None and control_type not in CONTROL_TYPES:
        raise UsageError(
            f"`control_type` is {control_type!r}; expected {' or '.join(CONTROL_TYPES)}."
        )
    if control_type is None or preprocessing.mode == "none":
        return frames
    if control_type == "canny":
        return canny_edges(
            frames,
            low_threshold=preprocessing.canny_low_threshold,
            high_threshold=preprocessing.canny_high_threshold,
        )
    return DepthEstimator(preprocessing.depth_checkpoint)(frames)


def prepare_control_frames(
    frames: npt.NDArray[np.uint8], *, video_length: int, height: int, width: int
) -> npt.NDArray[np.float32]:
    """Scales control frames to the video's size and their values to 0 to 1.

    Lanczos filtering, no cropping and no normalisation to -1 to 1, as the PyTorch pipeline does.

    Args:
        frames: uint8 `[video_length, old_height, old_width, 3]`.
        video_length: number of frames of the video.
        height: of the video, pixels.
        width: of the video, pixels.

    Returns:
        float32 `[video_length, height, width, 3]`.

    Raises:
        HotshotError: there is not one control frame for each frame of the video.
    """
    if len(frames) != video_length:
        raise HotshotError(
            f"{len(frames)} control frames for a video of {video_length}; "
            "expected one for each frame."
        )
    resized = [
        np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.LANCZOS))
        for frame in frames
    ]
    return np.stack(resized).astype(np.float32) / np.float32(255)
