import numpy as np
import pytest

from hotshot_jax import measure_frames


def clip(*levels: int, size: tuple[int, int] = (2, 3)) -> np.ndarray:
    return np.stack([np.full((*size, 3), level, np.uint8) for level in levels])


def test_steps_between_neighbours_and_back_to_the_first() -> None:
    measured = measure_frames(clip(10, 13, 11, 250))
    assert measured.differences == (3, 2, 239)
    assert measured.loop_difference == 240
    assert measured.loop_gap == pytest.approx(240 / 239)
    assert measured.flicker == pytest.approx((255 - 244 / 3) / 255)
    assert (measured.frames, measured.width, measured.height) == (4, 3, 2)


@pytest.mark.parametrize("count", [2, 3, 8, 13])
def test_measures_are_their_formulas_on_noise(count: int) -> None:
    frames = np.random.default_rng(count).integers(0, 256, (count, 9, 7, 3), np.uint8)
    measured = measure_frames(iter(frames))
    wide = frames.astype(np.float64)
    steps = np.abs(np.diff(wide, axis=0)).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(measured.differences, steps, rtol=1e-12)
    closing = np.abs(wide[-1] - wide[0]).mean()
    assert measured.loop_gap == pytest.approx(closing / steps.max(), rel=1e-12)
    # As VBench does it, in float32 and frame by frame.
    errors = [np.mean(np.abs(a - b)) for a, b in zip(*(frames.astype("f4")[s] for s in
              (slice(None, -1), slice(1, None))), strict=True)]  # fmt: skip
    assert measured.flicker == pytest.approx((255.0 - np.mean(errors).item()) / 255.0, rel=1e-6)
    means = wide.mean(axis=(1, 2))
    np.testing.assert_allclose(measured.mean_colours, means, rtol=1e-12)
    np.testing.assert_allclose(measured.colour_drift, np.abs(means - means[0]).mean(axis=1))
    assert measured.colours == tuple(
        len(np.unique(frame.reshape(-1, 3), axis=0)) for frame in frames
    )
    assert measured.duplicates == ()


def test_nothing_moves() -> None:
    measured = measure_frames(clip(7, 7, 7))
    assert measured.loop_gap == 0 and measured.flicker == 1
    assert measured.duplicates == (1, 2) and measured.last_equals_first
    assert measured.colour_drift == (0, 0, 0) and measured.colours == (1, 1, 1)


def test_a_perfect_loop_and_a_doubled_frame() -> None:
    turning = clip(*range(0, 80, 10), *range(80, 0, -10))
    assert measure_frames(turning).loop_gap == 1
    assert not measure_frames(turning).last_equals_first
    doubled = measure_frames(np.concatenate([turning, turning[:1]]))
    assert doubled.loop_gap == 0 and doubled.last_equals_first and doubled.duplicates == ()


def test_drift_of_one_channel_counts_for_a_third() -> None:
    frames = clip(100, 100)
    frames[1, ..., 2] += 30
    assert measure_frames(frames).colour_drift == (0, 10)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        (clip(1), "1 frames; at least two"),
        ([], "0 frames; at least two"),
        (clip(1, 2).astype(np.float32), "float32"),
        (clip(1, 2)[..., :1], "must be uint8"),
        ([*clip(1), *clip(2, size=(3, 2))], "differ"),
    ],
)
def test_what_is_no_clip(frames: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_frames(frames)
