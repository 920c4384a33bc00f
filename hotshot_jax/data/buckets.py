"""Aspect-ratio buckets: the sizes that clips are trained at, and how a clip is brought to one.

Each clip goes to the published size whose ratio is nearest to its own (Podell et al., "SDXL",
section 2.3); a batch holds clips of one bucket, so that each bucket compiles once.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.clip_source import ClipTable
from hotshot_jax.errors import UsageError
from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION, size_of_aspect_ratio
from hotshot_jax.media.resize import get_crop_coordinates, scale_aspect_fill

Size = tuple[int, int]

# The VAE's factor: both sides of a frame must be multiples of it.
_GRAIN: Final = 8
_PUBLISHED: Final = 1024


def bucket_sizes(resolution: int, aspect_ratio: str | None = None) -> tuple[Size, ...]:
    """The (width, height) of the buckets of a resolution, from the tallest to the widest.

    512 and 1024 give the published sizes. Another resolution gives the sizes of 1024 scaled to it
    and rounded to multiples of eight.

    Args:
        resolution: the side of the square bucket in pixels.
        aspect_ratio: a published name, such as "1.75", to have that bucket alone.

    Raises:
        UsageError: a resolution that is no positive multiple of eight, or an unknown ratio.
    """
    if resolution < _GRAIN or resolution % _GRAIN:
        raise UsageError(
            f"`resolution` {resolution} must be a positive multiple of {_GRAIN}, "
            "such as 512 or 1024."
        )
    published = SIZES_BY_RESOLUTION.get(resolution)
    if published is None:
        published = {
            name: (_scaled(width, resolution), _scaled(height, resolution))
            for name, (width, height) in SIZES_BY_RESOLUTION[_PUBLISHED].items()
        }
    if aspect_ratio is None:
        return tuple(published.values())
    wanted = size_of_aspect_ratio(
        aspect_ratio, _PUBLISHED, "left out, each sample has the one that is nearest to its own"
    )
    names = {size: name for name, size in SIZES_BY_RESOLUTION[_PUBLISHED].items()}
    return (published[names[wanted]],)


def assign_buckets(table: ClipTable, sizes: tuple[Size, ...]) -> npt.NDArray[np.uint8]:
    """The bucket of each clip: that whose width over height is nearest to the clip's.

    Of two equally near the first is taken, as the reference does.

    Returns:
        uint8 [samples], indices into `sizes`.
    """
    ratios = np.array([width / height for width, height in sizes])
    nearest = np.zeros(len(table), np.uint8)
    # In pieces, so that a million clips need no table of a million by seven distances.
    for start in range(0, len(table), 1 << 16):
        piece = slice(start, start + (1 << 16))
        own = table["width"][piece] / np.maximum(table["height"][piece], 1)
        nearest[piece] = np.abs(own[:, None] - ratios).argmin(1)
    return nearest


def time_ids(original: Size, bucket: Size) -> npt.NDArray[np.float32]:
    """SDXL's size conditioning in the reference's order, float32 [6].

    Width and height of the original, left and upper edge of the crop in the scaled picture (they
    may end in .5), width and height of the bucket. SDXL itself has height before width and upper
    before left; Hotshot-XL was trained with this order.
    """
    left, upper, _, _ = get_crop_coordinates(original, bucket)
    return np.array([*original, left, upper, *bucket], np.float32)


def fit_to_bucket(picture: npt.NDArray[np.uint8], bucket: Size) -> npt.NDArray[np.uint8]:
    """Scale a picture until it fills a bucket and crop its middle, as the reference does.

    Args:
        picture: uint8 [old_height, old_width, 3].
        bucket: (width, height).

    Returns:
        uint8 [height, width, 3].

    Raises:
        HotshotError: the picture is too narrow a strip to be scaled.
    """
    width, height = bucket
    if picture.shape[:2] == (height, width):
        return picture
    return scale_aspect_fill(picture, width, height)


def enlarged(table: ClipTable, buckets: npt.NDArray[np.uint8], sizes: tuple[Size, ...]) -> int:
    """How many clips are smaller than their bucket, so that training enlarges them."""
    own = np.array(sizes)[buckets]
    return int(((table["width"] < own[:, 0]) | (table["height"] < own[:, 1])).sum())


def choose_frames(available: int, wanted: int, seed: tuple[int, ...]) -> range:
    """Which frames of a clip to train on: neighbours, from a random start.

    Neighbours keep the clip's frame rate, which the temporal layers learn.

    Args:
        available: frames that the clip has, at least `wanted`.
        wanted: frames to choose.
        seed: the same seed chooses the same frames.
    """
    if available == wanted:
        return range(wanted)
    start = int(np.random.default_rng(seed).integers(available - wanted + 1))
    return range(start, start + wanted)


def _scaled(side: int, resolution: int) -> int:
    return max(_GRAIN, round(side * resolution / _PUBLISHED / _GRAIN) * _GRAIN)
