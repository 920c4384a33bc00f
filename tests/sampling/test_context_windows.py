"""Context windows against the tables of ComfyUI-AnimateDiff-Evolved's own functions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.choices import CONTEXT_FUSES, CONTEXT_SCHEDULES
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.windows import (
    ContextConfig,
    batched,
    circular,
    fuse_weights,
    half,
    rotation,
    standard_static,
    standard_uniform,
)

TABLES: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "golden-clips" / "cases" / "context_windows.json").read_text()
)
WINDOWS = TABLES["windows"]


def lists(windows: Any) -> list[list[int]]:
    return [list(window) for window in windows]


@pytest.mark.parametrize("closed", [True, False])
def test_looped_uniform(closed: bool) -> None:
    rows = WINDOWS["looped_uniform_closed" if closed else "looped_uniform_open"]
    assert len(rows) > 100
    for frames, length, overlap, stride, step, expected in rows:
        if frames < length:
            assert expected == [list(range(frames))]
            continue
        assert lists(circular(frames, length, overlap, stride, step, closed)) == expected


def test_standard_uniform() -> None:
    for frames, length, overlap, stride, step, expected in WINDOWS["standard_uniform"]:
        if frames > length:
            assert lists(standard_uniform(frames, length, overlap, stride, step)) == expected
        config = ContextConfig(length, overlap, "standard_uniform", stride)
        if frames != length:
            assert lists(config.windows(frames, step)) == expected


def test_standard_static_and_batched() -> None:
    for frames, length, overlap, expected in WINDOWS["standard_static"]:
        if frames > length:
            assert lists(standard_static(frames, length, overlap)) == expected
        assert lists(ContextConfig(length, overlap).windows(frames, 0)) == expected
    for frames, length, expected in WINDOWS["batched"]:
        assert lists(batched(frames, length)) == expected
        assert lists(ContextConfig(length, 0, "batched").windows(frames, 3)) == expected


def test_half_and_the_rotation_of_one_window() -> None:
    for step, expected in TABLES["half"]:
        assert half(step) == expected
    for frames, rotations in TABLES["loop_rotation"]:
        assert [rotation(frames, step) for step in range(16)] == [r % frames for r in rotations]
        config = ContextConfig(frames, 0, "looped_uniform", closed=True)
        for step in range(16):
            (window,) = config.windows(frames, step)
            assert window[0] == rotations[step] % frames
            assert sorted(window) == list(range(frames))


def test_weights() -> None:
    for fuse, rows in TABLES["weights"].items():
        if isinstance(rows, dict):
            for length, expected in rows.items():
                window = tuple(range(int(length)))
                np.testing.assert_array_equal(fuse_weights(fuse, window, 99, 0), expected)
            continue
        for row in rows:
            window = tuple(row["window"])
            frames = row.get("N", 99)
            found = fuse_weights(fuse, window, frames, row.get("o", 0))
            np.testing.assert_allclose(found, row["weights"], rtol=2e-7)


def test_sums_of_weights() -> None:
    for row in TABLES["sums"]:
        sums = np.zeros(row["N"])
        for window in row["windows"]:
            sums[window] += fuse_weights(row["fuse"], tuple(window), row["N"], row["o"])
        np.testing.assert_allclose(sums, row["sum_of_weights"], rtol=3e-7)


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
