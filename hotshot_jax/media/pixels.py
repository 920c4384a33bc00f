"""Video values to bytes, as the PyTorch reference makes them."""

import numpy as np
import numpy.typing as npt
from PIL import Image


def to_uint8(video: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Turn values in [0, 1] into bytes: times 255 in float32, then truncated, not rounded.

    Truncation is what torchvision's `ToPILImage` does, and so the reference. Values outside [0, 1]
    are clamped first.

    Args:
        video: any shape and floating dtype.

    Returns:
        uint8 of the same shape.

    Raises:
        ValueError: a value is not a number.
    """
    values = np.asarray(video).astype(np.float32)
    if np.isnan(values).any():
        raise ValueError("the video holds values that are not numbers")
    return (np.clip(values, 0, 1) * np.float32(255)).astype(np.uint8)


def as_images(videos: npt.ArrayLike) -> list[list[Image.Image]]:
    """Videos `[videos, frames, height, width, 3]` in [0, 1] as Pillow's images."""
    return [[Image.fromarray(frame) for frame in to_uint8(video)] for video in np.asarray(videos)]
