import math

import numpy as np
import pytest

from hotshot_jax import compare_frames
from hotshot_jax.measure.comparison import SMALLEST_SIDE, structural_similarity


def pictures(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A picture of waves and a worse copy; integers alone, so that they are the same everywhere."""
    y, x, c = np.indices((height, width, 3))
    one = (x * x + 3 * y * (c + 1) + 41 * c + seed) % 256
    worse = np.clip(one + (7 * x + 13 * y + 5 * c + seed) % 31 - 15, 0, 255)
    return one.astype(np.uint8), worse.astype(np.uint8)


def ssim_by_definition(one: np.ndarray, other: np.ndarray) -> float:
    """Wang et al.: every window of 11 x 11, by hand."""
    line = np.exp(-((np.arange(11) - 5.0) ** 2) / (2 * 1.5**2))
    weights = np.outer(line, line) / line.sum() ** 2
    found = []
    for top in range(one.shape[0] - 10):
        for left in range(one.shape[1] - 10):
            for channel in range(one.shape[2]):
                a, b = (
                    picture[top : top + 11, left : left + 11, channel].astype(np.float64)
                    for picture in (one, other)
                )
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a = (weights * (a - mean_a) ** 2).sum()
                var_b = (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                found.append(
                    (2 * mean_a * mean_b + 6.5025) * (2 * both + 58.5225)
                    / ((mean_a**2 + mean_b**2 + 6.5025) * (var_a + var_b + 58.5225))
                )  # fmt: skip
    return float(np.mean(found))


@pytest.mark.parametrize("size", [(11, 11), (14, 19), (20, 12)])
def test_similarity_is_its_definition(size: tuple[int, int]) -> None:
    one, other = pictures(*size)
    assert structural_similarity(one, other) == pytest.approx(
        ssim_by_definition(one, other), rel=1e-9
    )


SKIMAGE = {
    (11, 11): (0.8943006261079245, 29.224915392445897),
    (24, 40): (0.9829009305065896, 29.22091072682038),
    (64, 33): (0.9805217335685196, 29.217967395680414),
}


@pytest.mark.parametrize("size", SKIMAGE)
def test_similarity_and_noise_are_what_scikit_image_computes(size: tuple[int, int]) -> None:
    """Its release 0.26.0: Gaussian weights, no sample covariance, channels last, range 255."""
    one, other = pictures(*size)
    ssim, psnr = SKIMAGE[size]
    found = compare_frames(other[None], one[None])
    assert found.ssim == pytest.approx(ssim, rel=1e-9)
    assert found.psnr == pytest.approx(psnr, rel=1e-9)


def test_equal_clips() -> None:
    frames = np.stack([pictures(16, 16, seed)[0] for seed in range(3)])
    found = compare_frames(frames, iter(frames))
    assert found.error == found.error_flicker == 0
    assert found.psnr == found.blurred_psnr == math.inf and found.ssim == pytest.approx(1)


def test_a_clip_counts_as_a_whole_and_by_frames() -> None:
    original = np.full((2, 16, 16, 3), 100, np.uint8)
    frames = original.copy()
    frames[1] += 4
    found = compare_frames(frames, original)
    assert found.error == 2 and found.error_flicker == 4
    assert found.psnr == found.blurred_psnr == pytest.approx(10 * math.log10(255**2 / 8))
    assert found.psnr_of_frames == (math.inf, pytest.approx(10 * math.log10(255**2 / 16)))
    assert len(found.ssim_of_frames) == 2


def test_dots_vanish_in_a_blur_and_steps_do_not() -> None:
    original = np.full((1, 32, 32, 3), 100, np.uint8)
    dots, step = original.copy(), original.copy()
    dots[:, ::2, ::2] += 8
    dots[:, 1::2, 1::2] += 8
    dots[:, ::2, 1::2] -= 8
    dots[:, 1::2, ::2] -= 8
    step += 8
    found, stepped = compare_frames(dots, original), compare_frames(step, original)
    assert found.psnr == pytest.approx(stepped.psnr)
    assert found.blurred_psnr > stepped.blurred_psnr + 20


def test_frames_too_small_for_windows_have_no_similarity() -> None:
    one, other = pictures(SMALLEST_SIDE - 1, 40)
    found = compare_frames(one[None], other[None])
    assert found.ssim is None and found.ssim_of_frames == () and found.psnr > 0


def test_clips_that_cannot_be_compared() -> None:
    one = np.zeros((2, 12, 12, 3), np.uint8)
    for other in (one[:1], one[:, :11], one.astype(np.float32), one[:, :, :, :1]):
        with pytest.raises(ValueError):
            compare_frames(one, other)
    with pytest.raises(ValueError, match="no frames"):
        compare_frames(one[:0], one[:0])
