"""Clips that go on: what of them a run sees, and what comes out."""

import dataclasses

import numpy as np
import pytest

from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.conditioning.key_frames import numbers_by_frame
from hotshot_jax.errors import UsageError
from hotshot_jax.jobs.extension import Extension
from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.pipelines.control import ControlInput

CLIP = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), np.uint8)


def stored(frames: np.ndarray) -> StoredFrames:
    made = StoredFrames(*frames.shape[1:3])
    made.append(frames)
    return made


@pytest.mark.parametrize(
    ("frames", "window", "loop", "before", "behind"),
    [(6, 8, False, 4, 0), (6, 8, True, 4, 4), (3, 8, True, 3, 3), (6, 1, False, 1, 0)],
)
def test_half_a_window_is_known(
    frames: int, window: int, loop: bool, before: int, behind: int
) -> None:
    extension = Extension(CLIP[:frames], 5, window, loop)
    settings = extension.settings(ClipSettings("a", video_length=5, loop=loop))
    assert settings.video_length == before + 5 + behind
    assert (settings.loop, settings.context_length) == (False, min(window, before + 5 + behind))
    known = extension.start().known_frames
    assert sorted(known) == [*range(before), *range(before + 5, before + 5 + behind)]
    for frame in range(before):
        np.testing.assert_array_equal(known[frame], CLIP[frames - before + frame])
    for frame in range(behind):
        np.testing.assert_array_equal(known[before + 5 + frame], CLIP[frame])


def test_what_is_added_stands_behind_the_clip() -> None:
    # Nothing that is added shows what the clip shows at its ends.
    clip, made = CLIP // 8, np.random.default_rng(1).integers(200, 256, (13, 4, 4, 3), np.uint8)
    made[:4], made[9:] = clip[2:], clip[:4]
    joined = Extension(clip, 5, 8, loop=True).joined(stored(made))
    np.testing.assert_array_equal(joined, np.concatenate([clip, made[4:9]]))


@pytest.mark.parametrize("loop", [False, True])
def test_what_the_vae_took_is_given_back_where_nothing_moves(loop: bool) -> None:
    clip = np.full((6, 4, 4, 3), 100, np.uint8)
    clip[0] = 110
    # The run has the clip's last frame 5 too dark, its first 3 too bright.
    made = np.full((13 if loop else 9, 4, 4, 3), 95, np.uint8)
    made[4:9, :2] = 250
    made[9:] = 113
    joined = np.asarray(Extension(clip, 5, 8, loop=loop).joined(stored(made)))
    np.testing.assert_array_equal(joined[6:, :2], 250)
    still = joined[6:, 2:]
    if not loop:
        np.testing.assert_array_equal(still, 100)
        return
    # Nearer to the clip's first frame, more is said by that.
    assert (np.diff(still[:, 0, 0, 0].astype(int)) <= 0).all()
    assert still[0].min() >= 98 and still[-1].max() <= 97


def test_what_holds_at_frames_holds_at_the_same_pictures() -> None:
    clip = ClipSettings(
        "first",
        prompt_at=((3, "second"),),
        video_length=5,
        guidance_scale={0: 2.0, 4: 6.0},
        motion_scale={"down1": {2: 0.5}, "all": 0.9},
        ping_pong=True,
    )
    run = clip.as_part(4, 2)
    assert run.video_length == 11 and not run.ping_pong
    assert run.prompts == {4: "first", 7: "second"}
    assert run.negative_prompts == clip.negative_prompts
    assert run.motion_scale == {"down1": {6: 0.5}, "all": 0.9}
    of_run = numbers_by_frame(run.guidance_scale, 11, closed=False)
    of_clip = numbers_by_frame(clip.guidance_scale, 5, closed=False)
    np.testing.assert_array_equal(of_run[4:9], of_clip)
    alone = dataclasses.replace(clip, prompt_at=(), guidance_scale=5.0, motion_scale=1.0)
    assert alone.as_part(4, 0).prompts == "first"


def test_control_frames_lie_beside_the_added_ones() -> None:
    frames = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)
    given = ControlInput(frames, ControlWindow({1: 0.5}))
    control = Extension(CLIP, 5, 4, loop=True).control(given)
    np.testing.assert_array_equal(control.frames[2:7], frames)
    np.testing.assert_array_equal(control.frames[:2], frames[[0, 0]])
    np.testing.assert_array_equal(control.frames[7:], frames[[4, 4]])
    assert control.window.scale == {3: 0.5}


def test_a_run_has_a_limit() -> None:
    with pytest.raises(UsageError, match="more than 1024"):
        Extension(CLIP, 1021, 8)
