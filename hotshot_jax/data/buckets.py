"""Aspect-ratio buckets: the sizes that clips are trained at, and how a clip is brought to one.

Each clip goes to the published size whose ratio is nearest to its own (Podell et al., "SDXL",
section 2.3); a batch holds clips of one bucket, so that each bucket compiles once.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.clip_source import ClipTable
from hotshot_jax.errors import HotshotError, UsageError
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


def time_ids(
    original: Size, bucket: Size, corner: tuple[int, int] | None = None
) -> npt.NDArray[np.float32]:
    """SDXL's size conditioning in the reference's order, float32 [6].

    Width and height of the original, left and upper edge of the crop in the scaled picture (they
    may end in .5), width and height of the bucket. SDXL itself has height before width and upper
    before left; Hotshot-XL was trained with this order.
    """
    left, upper = corner or get_crop_coordinates(original, bucket)[:2]
    return np.array([*original, left, upper, *bucket], np.float32)


def fit_to_bucket(
    picture: npt.NDArray[np.uint8], bucket: Size, corner: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Scale a picture until it fills a bucket and crop it.

    Args:
        picture: uint8 [old_height, old_width, 3].
        bucket: (width, height).
        corner: left and upper edge of the crop in the scaled picture; None for the middle, which
            the reference takes.

    Returns:
        uint8 [height, width, 3].

    Raises:
        HotshotError: the picture is too narrow a strip to be scaled.
    """
    width, height = bucket
    if picture.shape[:2] == (height, width):
        return picture
    return scale_aspect_fill(picture, width, height, corner=corner)


def enlarged(table: ClipTable, buckets: npt.NDArray[np.uint8], sizes: tuple[Size, ...]) -> int:
    """How many clips are smaller than their bucket, so that training enlarges them."""
    own = np.array(sizes)[buckets]
    return int(((table["width"] < own[:, 0]) | (table["height"] < own[:, 1])).sum())


def choose_frames(available: int, wanted: int, seed: tuple[int, ...], stride: int = 1) -> range:
    """Which frames of a clip to train on: neighbours, from a random start.

    Neighbours keep the clip's frame rate, which the temporal layers learn.

    Args:
        available: frames that the clip has, at least `spanned_frames`.
        wanted: frames to choose.
        seed: the same seed chooses the same frames.
        stride: from each frame to the next; at 2 every second frame is chosen.
    """
    spanned = spanned_frames(wanted, stride)
    if available == spanned:
        return range(0, spanned, stride)
    start = int(np.random.default_rng(seed).integers(available - spanned + 1))
    return range(start, start + spanned, stride)


def spanned_frames(wanted: int, stride: int) -> int:
    """How many frames lie from the first to the last of some that are a stride apart."""
    return (wanted - 1) * stride + 1


def stride_at(fps: float | None, wanted_fps: float | None, stride: int) -> int:
    """The stride at which a clip comes nearest to some frames a second.

    Args:
        fps: of the clip; None where it is not known.
        wanted_fps: None to take the other stride.
        stride: what is taken without.

    Raises:
        HotshotError: the clip does not say how many frames a second it has.
    """
    if wanted_fps is None:
        return stride
    if not fps:
        raise HotshotError("it is not known how many frames a second it has")
    return max(1, round(fps / wanted_fps))


def _scaled(side: int, resolution: int) -> int:
    return max(_GRAIN, round(side * resolution / _PUBLISHED / _GRAIN) * _GRAIN)
