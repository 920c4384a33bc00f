"""`infer.py` with clips and pictures to start from."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.infer.arguments import completed
from hotshot_jax.cli.infer.command import given_flags
from hotshot_jax.cli.infer.start import opened_source, plan_start, start_input, with_source
from hotshot_jax.errors import UsageError
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.media.write import write_video
from tests.cli.conftest import Infer
from tests.cli.refusals import assert_refused_at_once

CLIP = np.random.default_rng(0).integers(0, 256, (6, 24, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start")
    write_video(folder / "walk.webp", CLIP, 900, {}, lossless=True)
    write_video(folder / "five.webp", CLIP[:5], 900, {}, lossless=True)
    Image.fromarray(CLIP[0]).save(folder / "cat.png")
    half = np.zeros((24, 40), np.uint8)
    half[:, 20:] = 255
    Image.fromarray(half).save(folder / "mask.png")
    return folder


def planned(files: Path, line: str) -> Any:
    words = [word.replace("@", f"{files}/") for word in line.split()]
    parsed = completed(given_flags(words))
    with opened_source(parsed.settings) as source:
        settings = with_source(parsed.settings, source, parsed.named)
        plan = plan_start(settings, source)
    return start_input(plan, settings), settings


def test_length_size_and_duration_are_those_of_the_clip(files: Path) -> None:
    start, settings = planned(files, "--video @walk.webp --steps 5")
    assert (settings.width, settings.height, settings.video_length) == (40, 24, 6)
    assert settings.video_duration == 900
    np.testing.assert_array_equal(start.video, CLIP)
    assert (start.strength, start.mask, start.known_frames) == (0.8, None, {})


def test_what_is_given_wins_and_scaling_is_told(
    files: Path, caplog: pytest.LogCaptureFixture
) -> None:
    start, _ = planned(
        files, "--video @walk.webp --width 16 --height 16 --video_length 3 --strength 0.5"
    )
    assert start.video.shape == (3, 16, 16, 3)
    assert start.strength == 0.5
    assert "40 x 24 pixels is scaled and cropped to 16 x 16" in caplog.text


def test_white_is_made(files: Path) -> None:
    start, _ = planned(files, "--video @walk.webp --mask @mask.png")
    assert start.strength == 1.0
    assert start.mask.shape == (6, 24, 40)
    assert (start.mask[:, :, :20] == 0).all() and (start.mask[:, :, 20:] == 1).all()


def test_pictures_of_frames(files: Path) -> None:
    line = "--width 40 --height 24 --first_frame @cat.png --last_frame @cat.png"
    start, _ = planned(files, line)
    assert sorted(start.known_frames) == [0, 7]
    np.testing.assert_array_equal(start.known_frames[0], CLIP[0])
    words = ["--width", "40", "--height", "24", "--frame_at", f"3: {files}/cat.png"]
    assert sorted(plan_start(completed(given_flags(words)).settings, None).known) == [3]


def test_a_picture_is_held_still_and_a_clip_without_times_has_the_usual_ones(
    files: Path, tmp_path: Path
) -> None:
    start, settings = planned(files, "--video @cat.png --mask @walk.webp --video_length 6")
    assert (settings.width, settings.video_duration) == (40, 1000)
    np.testing.assert_array_equal(start.video, np.stack([CLIP[0]] * 6))
    assert start.mask.shape == (6, 24, 40)
    write_video(f"{tmp_path}/many/", np.repeat(CLIP, 10, 0), 1000, {})
    _, settings = planned(files, f"--video {tmp_path}/many --width 16")
    assert (settings.video_length, settings.video_duration) == (60, 7500)
    assert (settings.width, settings.height) == (16, 24)


def test_known_frames_leave_the_clip_its_say(files: Path) -> None:
    start, _ = planned(files, "--video @walk.webp --first_frame @cat.png")
    assert start.strength == 0.8


def test_a_clip_goes_on_from_its_last_half_window(files: Path) -> None:
    start, settings = planned(files, "--extend @walk.webp --frame_at 2:@cat.png")
    # Six frames of 150 ms; what is added goes on as fast.
    assert (settings.video_length, settings.video_duration) == (8, 1200)
    assert (settings.width, settings.height) == (40, 24)
    assert sorted(start.known_frames) == [0, 1, 2, 3, 6]
    for frame in range(4):
        np.testing.assert_array_equal(start.known_frames[frame], CLIP[2 + frame])
    np.testing.assert_array_equal(start.known_frames[6], CLIP[0])
    start, _ = planned(files, "--extend @walk.webp --loop --context_length 4 --video_length 3")
    assert sorted(start.known_frames) == [0, 1, 5, 6]
    np.testing.assert_array_equal(start.known_frames[6], CLIP[1])
    start, settings = planned(files, "--extend @cat.png")
    assert sorted(start.known_frames) == [0]
    assert (settings.context_fuse, settings.repaint, start.repaint) == ("first", 2, 2)
    start, settings = planned(files, "--extend @cat.png --repaint 3 --context_fuse pyramid")
    assert (settings.context_fuse, start.repaint) == ("pyramid", 3)
    assert not start.first_frame_attention
    for line in ("--extend @cat.png", "--first_frame @cat.png", "--video @walk.webp --smooth 1"):
        start, _ = planned(files, f"{line} --first_frame_attention")
        assert start.first_frame_attention


@pytest.mark.parametrize("loop", [False, True])
def test_frames_are_made_between_those_of_a_clip(files: Path, loop: bool) -> None:
    line = "--video @walk.webp --smooth 2" + " --loop" * loop
    start, settings = planned(files, line)
    assert settings.video_length == (18 if loop else 16)
    assert settings.video_duration == 50 * settings.video_length
    assert sorted(start.known_frames) == [0, 3, 6, 9, 12, 15]
    assert start.video.shape == (settings.video_length, 24, 40, 3) and start.strength == 0.5
    third = (2 * CLIP[0].astype(np.float64) + CLIP[1]) / 3
    np.testing.assert_allclose(start.video[1], third, atol=0.51)
    if loop:
        np.testing.assert_allclose(start.video[-1], (CLIP[5] + 2.0 * CLIP[0]) / 3, atol=0.51)
    for frame, picture in start.known_frames.items():
        np.testing.assert_array_equal(picture, CLIP[frame // 3])
    assert (settings.guidance_scale, start.repaint) == (2.0, 2)
    again, _ = planned(files, f"{line} --video_length {settings.video_length}")
    assert sorted(again.known_frames) == sorted(start.known_frames)


BAD = {
    "--video @walk.webp --extend @walk.webp": "give one of them",
    "--extend @walk.webp --mask @mask.png": "--mask needs --video",
    "--extend @walk.webp --strength 0.5": "--strength needs --video",
    "--extend @none.gif": "--extend: .* does not exist",
    "--extend @walk.webp --video_length 1021": "more than 1024",
    "--smooth 2": "--smooth needs --video",
    "--video @walk.webp --smooth 0": "--smooth is 0; expected 1",
    "--video @walk.webp --smooth 1 --mask @mask.png": "--mask changes it",
    "--video @walk.webp --smooth 1 --strength 0": "above 0, to 1",
    "--video @walk.webp --smooth 1 --video_length 8": "has 11; leave it out",
    "--video @walk.webp --smooth 1 --frame_at 2:@cat.png": "Frame 2 is one of --video",
    "--video @cat.png --smooth 1": "is one picture",
    "--first_frame @cat.png --repaint 0": "--repaint is 0; expected 1",
    "--mask @mask.png": "--mask needs --video",
    "--strength 0.5": "--strength needs --video",
    "--video @walk.webp --strength 0": "above 0, to 1",
    "--video @walk.webp --strength 1.2": "above 0, to 1",
    "--video @walk.webp --strength nan": "above 0, to 1",
    "--video @walk.webp --strength 0.01 --steps 5": "of 5 steps none is left",
    "--video @walk.webp --mask @five.webp": "has 5 frames, and --video has 6",
    "--video @walk.webp --video_length 7": "walk.webp",
    "--video @none.gif": "does not exist",
    "--first_frame @walk.webp": "is a clip; expected a picture",
    "--first_frame @cat.png --frame_at 0:@cat.png": "a second picture",
    "--frame_at 8:@cat.png": "names frame 8",
    "--frame_at @cat.png": "FRAME: PICTURE",
    "--first_frame @none.png": "--first_frame: .* does not exist",
}


@pytest.mark.parametrize("line", BAD)
def test_bad_input(files: Path, line: str) -> None:
    with pytest.raises(UsageError, match=BAD[line]):
        planned(files, line)


def test_what_is_wrong_elsewhere_is_not_said_of_the_clip(infer: Infer, files: Path) -> None:
    run = infer("--video", files / "walk.webp", "--steps", "0")
    assert_refused_at_once(run, 2, "error: --steps is 0")
    run = infer("--extend", files / "walk.webp", "--context_length", "4", "--context_overlap", "4")
    assert_refused_at_once(run, 2, "context_overlap")
    assert "--extend" not in run.stderr


def test_the_command_makes_a_clip_of_a_clip_and_tells_of_it(
    infer: Infer, files: Path, tmp_path: Path
) -> None:
    output = tmp_path / "a.gif"
    size = ("--width", "16", "--height", "16", "--video_length", "2")
    run = infer("--video", files / "walk.webp", "--strength", "0.5", *size, "--output", output)
    assert run.status == 0, run.stderr
    again = infer("--config", output, "--output", tmp_path / "b.gif")
    assert_refused_at_once(again, 2, "--video walk.webp")


def test_the_command_adds_frames_to_a_clip(infer: Infer, files: Path, tmp_path: Path) -> None:
    size = ("--width", "16", "--height", "16", "--video_length", "2", "--context_length", "2")
    output = tmp_path / "longer/"
    run = infer("--extend", files / "walk.webp", *size, "--output", f"{output}/")
    assert run.status == 0, run.stderr
    frames = [np.asarray(Image.open(each)) for each in sorted(output.glob("*.png"))]
    assert len(frames) == len(CLIP) + 2
    for frame, of_clip in zip(frames, CLIP, strict=False):
        np.testing.assert_array_equal(frame, scale_aspect_fill(of_clip, 16, 16))


def test_a_first_frame_is_taken(infer: Infer, files: Path, tmp_path: Path) -> None:
    size = ("--width", "16", "--height", "16", "--video_length", "2")
    run = infer("--first_frame", files / "cat.png", *size, "--output", tmp_path / "a.gif")
    assert run.status == 0, run.stderr
