"""What is measured of clips that start from something."""

from typing import Any

import numpy as np
import pytest

from benchmarks.toy.clip_tasks import Figure, Record
from benchmarks.toy.start_tasks import drawn, start_tasks
from hotshot_jax.pipelines.in_betweens import blended

TASKS = start_tasks()
KEYS = {0: "a red square moving right on a black background"}
CLIP = drawn(KEYS, 64)


def record(task: str, frames: np.ndarray, way: str | None = None) -> Record:
    ways = TASKS[task].ways
    return TASKS[task].record(KEYS, ways[way or next(iter(ways))], frames)


def figures(task: str, records: dict[str, list[Record]]) -> dict[str, Figure]:
    return {figure.name: figure for figure in TASKS[task].figures(records)}


def test_a_clip_that_begins_with_its_picture_and_one_that_does_not() -> None:
    good, other = record("first", CLIP), record("first", CLIP[::-1])
    assert good["psnr"] > 99 and good["all"] and good["frames"] and good["leap"] < 1.2
    assert other["psnr"] < 30 and not other["motion"] and other["colour"]
    found = figures("first", {"first frame": [good] * 3 + [other]})
    assert found["first frame at 30 dB"].values["first frame"] == 0.75
    assert not found["first frame at 30 dB"].holds
    assert found["motion right"].holds and found["colour and shape right"].holds


def test_in_betweens_are_measured_against_what_was_drawn() -> None:
    exact = record("between", CLIP[:7])
    blend = record("between", blended(CLIP[:7:2], 1))
    assert exact["psnr"] == exact["known"] == blend["known"] == 99 and blend["psnr"] < 30
    found = figures("between", {"in-betweens": [exact], "linear blending": [blend]})
    assert found["above linear blending, dB"].holds
    assert found["above linear blending, dB"].values["linear blending"] == 0
    assert not any("standing still" in keys[0] for keys in TASKS["between"].prompts)


@pytest.mark.parametrize(("offset", "smooth"), [(1, True), (30, False)])
def test_the_joint_is_held_against_the_other_steps(offset: int, smooth: bool) -> None:
    # A bar that goes on as it went, or leaps.
    frames = np.zeros((16, 64, 64, 3), np.uint8)
    for index, left in enumerate([*range(8), *range(7 + offset, 15 + offset)]):
        frames[index, 20:40, left : left + 10] = 255
    found = record("extend", frames)
    assert (found["joint"] == pytest.approx(1)) == smooth
    assert figures("extend", {"extension": [found]})["joint at most 1.25"].holds == smooth


@pytest.mark.parametrize(
    ("task", "way", "known", "frames"),
    [
        ("first", "first frame", {0: 0}, 8),
        ("between", "in-betweens", {0: 0, 2: 2, 4: 4, 6: 6}, 7),
        ("extend", "extension", {0: 4, 1: 5, 2: 6, 3: 7}, 12),
    ],
)
def test_what_is_given_of_the_drawn_clip(
    task: str, way: str, known: dict[int, int], frames: int
) -> None:
    tried: Any = TASKS[task].ways[way]
    start = tried.start(KEYS, 64)
    assert tried.frames == frames and (start.video is None) == (task != "between")
    assert sorted(start.known_frames) == sorted(known)
    for frame, of_clip in known.items():
        np.testing.assert_array_equal(start.known_frames[frame], CLIP[of_clip])
    made = np.zeros((frames, 64, 64, 3), np.uint8)
    finished = tried.finish(KEYS, made)
    assert len(finished) == (16 if task == "extend" else frames)
    if task == "extend":
        np.testing.assert_array_equal(finished[:8], CLIP)
