"""Frames that wait on disk."""

from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.media import stored_frames
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.media.write import write_video


@pytest.fixture(params=[1 << 20, 100], ids=["in memory", "on disk"])
def frames(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    monkeypatch.setattr(stored_frames, "_MOST_IN_MEMORY", request.param)
    return np.random.default_rng(0).integers(0, 256, (7, 9, 6, 3), np.uint8)


def stored(frames: np.ndarray) -> StoredFrames:
    result = StoredFrames(*frames.shape[1:3])
    result.append(frames[:2])
    result.append(frames[2:])
    return result


def test_it_is_read_like_an_array(frames: np.ndarray) -> None:
    kept = stored(frames)
    assert (kept.shape, kept.dtype, kept.size, len(kept)) == (
        frames.shape,
        np.uint8,
        frames.size,
        7,
    )
    np.testing.assert_array_equal(kept, frames)
    np.testing.assert_array_equal(kept[3], frames[3])
    np.testing.assert_array_equal(kept[-3:], frames[-3:])
    for got, expected in zip(kept, frames, strict=True):
        np.testing.assert_array_equal(got, expected)


def test_another_order(frames: np.ndarray) -> None:
    order = [0, 1, 2, 1]
    np.testing.assert_array_equal(stored(frames).in_order(order), frames[order])
    twice = stored(frames).in_order([3, 2, 1]).in_order([2, 0])
    np.testing.assert_array_equal(twice, frames[[1, 3]])


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "folder/"])
def test_files_are_those_of_the_array(frames: np.ndarray, tmp_path: Path, name: str) -> None:
    paths = []
    for place, given in (("array", frames), ("stored", stored(frames))):
        paths.append(write_video(f"{tmp_path / place}-{name}", given, 1000, {"made": "here"}))
    one, other = (path.iterdir() if path.is_dir() else [path] for path in paths)
    for ours, theirs in zip(sorted(one), sorted(other), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()
