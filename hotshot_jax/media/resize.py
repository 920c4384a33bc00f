"""Scaling a picture so that it fills a size, and cropping what hangs over."""

from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import HotshotError

# A strip of one pixel in height, scaled to fill a square, would be that many times as long.
_MOST_PIXELS_BEFORE_CROP: Final = 2**28


def get_crop_coordinates(
    old_size: tuple[int, int], new_size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Give the box that is cropped from a picture after it was scaled to fill a size.

    Args:
        old_size: (width, height) of the picture.
        new_size: (width, height) to be filled.

    Returns:
        (left, upper, right, lower) in pixels of the scaled picture; may end in .5.

    Raises:
        ValueError: a side is not positive.
    """
    scaled_width, scaled_height = _scaled_size(old_size, new_size)
    width, height = new_size
    return (
        (scaled_width - width) / 2,
        (scaled_height - height) / 2,
        (scaled_width + width) / 2,
        (scaled_height + height) / 2,
    )


def scale_aspect_fill(
    picture: npt.NDArray[np.uint8],
    width: int,
    height: int,
    *,
    repair_odd_sizes: bool = True,
    corner: tuple[int, int] | None = None,
) -> npt.NDArray[np.uint8]:
    """Scale a picture by Lanczos filtering until it fills a size, and crop what hangs over.

    Args:
        picture: uint8 [old_height, old_width, 3] or grey [old_height, old_width].
        width: wanted width in pixels.
        height: wanted height in pixels.
        repair_odd_sizes: give exactly the wanted size. The reference rounds both edges of a crop
            box that ends in .5 half-to-even, which makes an odd side one pixel too long or too
            short; False reproduces that. What the reference meets is the same either way.
        corner: left and upper edge of the crop in the scaled picture, at most `room_to_crop`; None
            for its middle.

    Returns:
        uint8 [height, width, 3] or [height, width].

    Raises:
        ValueError: a side is not positive.
        HotshotError: the picture is so narrow a strip that scaling it would need too much memory.
    """
    old_height, old_width = picture.shape[:2]
    old_size, new_size = (old_width, old_height), (width, height)
    scaled = _scaled_size(old_size, new_size)
    if scaled[0] * scaled[1] > _MOST_PIXELS_BEFORE_CROP:
        raise HotshotError(
            f"A picture of {old_width}x{old_height} pixels is too narrow a strip to fill "
            f"{width}x{height}: it would first be scaled to {scaled[0]}x{scaled[1]}. Crop it first."
        )
    # Python's round is half-to-even too, so this is the box that Pillow itself would cut.
    left, upper, right, lower = (round(edge) for edge in get_crop_coordinates(old_size, new_size))
    if corner is not None:
        left, upper = corner
    if repair_odd_sizes or corner is not None:
        right, lower = left + width, upper + height
    image = Image.fromarray(picture).resize(scaled, Image.Resampling.LANCZOS)
    return np.asarray(image.crop((left, upper, right, lower)))


def room_to_crop(old_size: tuple[int, int], new_size: tuple[int, int]) -> tuple[int, int]:
    """By how much a picture hangs over a size, in width and height, once it is scaled to fill it.

    Args:
        old_size: (width, height) of the picture.
        new_size: (width, height) to be filled.

    Raises:
        ValueError: a side is not positive.
    """
    scaled_width, scaled_height = _scaled_size(old_size, new_size)
    return scaled_width - new_size[0], scaled_height - new_size[1]


def _scaled_size(old_size: tuple[int, int], new_size: tuple[int, int]) -> tuple[int, int]:
    (old_width, old_height), (width, height) = old_size, new_size
    if min(*old_size, *new_size) < 1:
        raise ValueError(f"sizes are {old_size} and {new_size}; every side must be positive")
    width_ratio, height_ratio = width / old_width, height / old_height
    if width_ratio > height_ratio:
        return width, round(old_height * width_ratio)
    return round(old_width * height_ratio), height
