"""A clip beside the one that it should be like, such as a GIF beside the frames it was made of."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from hotshot_jax.measure.frames import Frame, check_frame

# Standard deviation in pixels: that of Wang et al., and about how the eye mixes dots.
_SIGMA = 1.5
_RADIUS = 5
SMALLEST_SIDE = 2 * _RADIUS + 1
"""Pixels a side, below which there is no structural similarity."""


@dataclass(frozen=True)
class Comparison:
    """How a clip differs from another of its size and length, in levels of 0 to 255 and decibels.

    For a GIF and the frames that it was made of, this is the error of its palettes: grain lowers
    `psnr` and `ssim`, steps in smooth places lower `blurred_psnr`.

    Attributes:
        error: mean absolute difference over pixels, channels and frames.
        psnr: peak signal-to-noise ratio, of the squared error of all frames together; infinite for
            equal clips.
        ssim: mean structural similarity (Wang et al., 2004), over channels and frames; None if a
            side is shorter than `SMALLEST_SIDE`.
        blurred_psnr: `psnr` of both clips blurred by a Gaussian of 1.5 pixels, as the eye mixes
            the dots of a palette.
        error_flicker: mean absolute change of the error from one frame to the next.
        psnr_of_frames: of each frame.
        ssim_of_frames: of each frame; empty if `ssim` is None.
    """

    error: float
    psnr: float
    ssim: float | None
    blurred_psnr: float
    error_flicker: float
    psnr_of_frames: tuple[float, ...]
    ssim_of_frames: tuple[float, ...]


def compare_frames(frames: Iterable[Frame], original: Iterable[Frame]) -> Comparison:
    """Compare two clips, holding two frames of each at a time.

    Args:
        frames: uint8 `[frames, height, width, 3]`, or as many `[height, width, 3]` one by one.
        original: as many frames of the same size.

    Raises:
        ValueError: they have no frames, or differ in number or size; or a dtype is another.
    """
    errors: list[float] = []
    squares: list[float] = []
    blurred: list[float] = []
    similarities: list[float] = []
    changes: list[float] = []
    before: npt.NDArray[np.float32] | None = None
    for one, other in zip(frames, original, strict=True):
        check_frame(other, other)
        check_frame(one, other)
        a, b = one.astype(np.float32), other.astype(np.float32)
        error = a - b
        errors.append(_mean(np.abs(error)))
        squares.append(_mean(np.square(error)))
        blurred.append(_mean(np.square(gaussian_filter(error, (_SIGMA, _SIGMA, 0)))))
        if before is not None:
            changes.append(_mean(np.abs(error - before)))
        if min(one.shape[:2]) >= SMALLEST_SIDE:
            similarities.append(structural_similarity(a, b))
        before = error
    if not errors:
        raise ValueError("there are no frames to compare")
    return Comparison(
        error=float(np.mean(errors)),
        psnr=_decibels(np.mean(squares)),
        ssim=float(np.mean(similarities)) if similarities else None,
        blurred_psnr=_decibels(np.mean(blurred)),
        error_flicker=float(np.mean(changes)) if changes else 0.0,
        psnr_of_frames=tuple(map(_decibels, squares)),
        ssim_of_frames=tuple(similarities),
    )


def structural_similarity(one: npt.ArrayLike, other: npt.ArrayLike) -> float:
    """Mean structural similarity of two pictures.

    Windows that pass the border do not count. It is what scikit-image computes with
    `gaussian_weights=True`, `use_sample_covariance=False`, `data_range=255`, `channel_axis=-1`.

    Args:
        one: `[height, width, channels]` in levels of 0 to 255, both sides at least
            `SMALLEST_SIDE`.
        other: of the same shape.
    """
    inside = slice(_RADIUS, -_RADIUS)
    return float(similarity_map(one, other)[inside, inside].mean())


def similarity_map(one: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Structural similarity around each pixel (Wang et al., 2004, doi:10.1109/TIP.2003.819861).

    Windows are Gaussian, 11 pixels wide, of standard deviation 1.5, mirrored at the border.

    Args:
        one: `[height, width, channels]` in levels of 0 to 255.
        other: of the same shape.

    Returns:
        `[height, width, channels]`, at most 1.
    """
    # Variances are small differences of large squares, which float32 does not hold.
    a, b = np.asarray(one, np.float64), np.asarray(other, np.float64)

    def mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        return gaussian_filter(values, (_SIGMA, _SIGMA, 0), truncate=_RADIUS / _SIGMA)

    mean_a, mean_b = mean(a), mean(b)
    variances = mean(a * a) - mean_a**2 + mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    first, second = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mean_a * mean_b + first) * (2 * covariance + second)
    similarity /= (mean_a**2 + mean_b**2 + first) * (variances + second)
    return similarity


def _mean(values: npt.NDArray[np.float32]) -> float:
    return float(values.mean(dtype=np.float64))


def _decibels(squared_error: float | np.floating) -> float:
    return 10 * math.log10(255**2 / squared_error) if squared_error else math.inf
