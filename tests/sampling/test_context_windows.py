"""Context windows against the tables of ComfyUI-AnimateDiff-Evolved's own functions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case
from hotshot_jax.choices import CONTEXT_FUSES, CONTEXT_SCHEDULES
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.windows import ContextConfig, rotation

GOLDEN = Path(__file__).parents[1] / "golden-clips"


@pytest.mark.parametrize("name", ["context_windows", "travel_weights", "freenoise"])
def test_tables(name: str) -> None:
    (case,) = read_cases(GOLDEN, [name])
    results = list(run_case(case))
    assert [result for result in results if result.verdict.fails] == []
    assert any(result.error == 0 for result in results)


def test_a_closed_clip_of_one_window_is_rotated() -> None:
    for frames in (2, 5, 7, 8):
        config = ContextConfig(frames + 3, 0, "looped_uniform", closed=True)
        for step in range(16):
            (window,) = config.windows(frames, step)
            assert window[0] == rotation(frames, step)
            assert window == tuple((window[0] + place) % frames for place in range(frames))


def test_weights_of_a_frame_add_up_to_one_also_where_they_are_faint() -> None:
    # The only window of frame 1 in this step gives it a weight of 1e-37.
    config = ContextConfig(15, 4, "standard_uniform", fuse="overlap_linear")
    windows = config.windows(26, 16)
    total = np.zeros(26)
    for window, weights in zip(windows, config.weights(windows, 26), strict=True):
        assert weights.dtype == np.float32
        np.add.at(total, list(window), weights)
    np.testing.assert_allclose(total, 1, rtol=1e-6)


@pytest.mark.parametrize("seed", range(20))
def test_every_frame_is_covered_and_no_window_holds_one_twice(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(20):
        length = int(random.integers(1, 25))
        frames = int(random.integers(1, 200))
        schedule = str(random.choice(CONTEXT_SCHEDULES))
        fuse = str(random.choice(CONTEXT_FUSES[:2]))
        config = ContextConfig(
            length, int(random.integers(0, length)), schedule, fuse=fuse, closed=False
        )
        for step in (0, 1, 7, 30):
            windows = config.windows(frames, step)
            assert set().union(*windows) == set(range(frames))
            assert all(len(set(window)) == len(window) for window in windows)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"length": 8, "overlap": 8}, "context_overlap"),
        ({"length": 8, "overlap": -1}, "context_overlap"),
        ({"length": 0, "overlap": 0}, "context_length"),
        ({"length": 8, "overlap": 4, "schedule": "static"}, "context_schedule"),
        ({"length": 8, "overlap": 4, "fuse": "sum"}, "context_fuse"),
        ({"length": 8, "overlap": 4, "stride": 0}, "context_stride"),
        ({"length": 8, "overlap": 4, "closed": True}, "looped_uniform"),
        ({"length": 8, "overlap": 4, "schedule": "looped_uniform", "fuse": "relative"}, "relative"),
    ],
)
def test_what_cannot_be_is_refused(arguments: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        ContextConfig(**arguments)


def test_a_frame_in_no_window_is_refused() -> None:
    with pytest.raises(UsageError, match="in no window of step 38"):
        ContextConfig(23, 16, "standard_uniform", stride=2).windows(50, 38)


def test_first_takes_each_frame_from_the_first_window_that_has_it() -> None:
    config = ContextConfig(4, 2, fuse="first")
    windows = config.windows(7, 0)
    assert windows == [(0, 1, 2, 3), (2, 3, 4, 5), (3, 4, 5, 6)]
    weights = config.weights(windows, 7)
    np.testing.assert_array_equal(weights, [[1, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]])
