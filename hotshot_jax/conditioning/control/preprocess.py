"""Making control frames of a kind from the frames of a video."""

import dataclasses

import numpy as np
import numpy.typing as npt

from hotshot_jax.choices import (
    CONTROL_TYPES,
    DEPTH_CHECKPOINT,
    HIGH_THRESHOLD,
    LOW_THRESHOLD,
    PREPROCESSING,
)
from hotshot_jax.conditioning.control.canny import canny_edges, check_thresholds
from hotshot_jax.conditioning.control.depth import DepthEstimator
from hotshot_jax.conditioning.control.optional import require
from hotshot_jax.errors import UsageError


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
