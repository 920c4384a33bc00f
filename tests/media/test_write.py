import errno
import os
import resource
import signal
import subprocess
from pathlib import Path
from typing import IO

import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image, ImageSequence

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media import write
from hotshot_jax.media.write import check_output, read_metadata, write_video

CLIP_NAMES = ["a.gif", "a.webp", "a.mp4", "folder"]
PICTURE_NAMES = ["a.jpg", "a.png"]


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


def total_duration(path: Path) -> float:
    with Image.open(path) as image:
        total = 0
        for frame in ImageSequence.Iterator(image):
            frame.load()
            total += frame.info["duration"]
        return total


@pytest.mark.parametrize(
    ("duration", "rounded"), [(1000, 1000), (333, 330), (1005, 1010), (999.9, 1000)]
)
@pytest.mark.parametrize("count", [3, 7, 8])
def test_gif_times_add_up_to_the_nearest_hundredth(
    tmp_path, equal_frames, duration, rounded, count
):
    path = write_video(tmp_path / "a.gif", equal_frames[:count], duration, {})
    assert total_duration(path) == rounded
    with Image.open(path) as image:
        assert image.n_frames == count


def test_webp_times_add_up_to_the_millisecond(tmp_path, equal_frames):
    path = write_video(tmp_path / "a.webp", equal_frames[:7], 1001, {})
    assert total_duration(path) == 1001


def test_mp4_duration(tmp_path, equal_frames):
    path = write_video(tmp_path / "a.mp4", equal_frames, 1600, {})
    count, seconds = imageio_ffmpeg.count_frames_and_secs(path)
    assert count == 8
    assert seconds == pytest.approx(1.6, abs=0.01)


def test_folder_of_pngs_is_exact(tmp_path, frames):
    path = write_video(f"{tmp_path}/clip.gif/", frames, 1000, {})
    assert sorted(file.name for file in path.iterdir()) == [f"frame_000{i}.png" for i in range(8)]
    for index in range(8):
        with Image.open(path / f"frame_000{index}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), frames[index])


def test_png_is_exact(tmp_path, frames):
    with Image.open(write_video(tmp_path / "a.png", frames[:1], 1000, {})) as image:
        np.testing.assert_array_equal(np.asarray(image), frames[0])


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg"])
def test_jpeg_is_near(tmp_path, frames, name):
    with Image.open(write_video(tmp_path / name, frames[:1], 1000, {"a": "b"})) as image:
        assert image.format == "JPEG"
        # Quality 95, chroma not subsampled; measured 0.9 of 255.
        error = np.asarray(image) * 1.0 - frames[0]
    assert np.sqrt(np.mean(error**2)) < 2


@pytest.mark.parametrize("lossless", [False, True])
def test_lossless_webp(tmp_path, frames, lossless):
    with Image.open(write_video(tmp_path / "a.webp", frames, 1000, {}, lossless=lossless)) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), frames[0]) == lossless


@pytest.mark.parametrize("name", [*CLIP_NAMES, *PICTURE_NAMES])
def test_one_frame_goes_everywhere(tmp_path, frames, name):
    path = write_video(tmp_path / "new" / name, frames[:1], 1000, {"seed": "0"})
    assert path == tmp_path / "new" / name
    assert read_metadata(path) == {"seed": "0"}


@pytest.mark.parametrize("name", CLIP_NAMES)
def test_overwrite(tmp_path, frames, name):
    path = write_video(tmp_path / name, frames, 1000, {"run": "1"})
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="`overwrite`"):
        write_video(path, frames, 1000, {"run": "2"})
    assert everything(tmp_path) == before
    write_video(path, frames[:5], 1000, {"run": "3"}, overwrite=True)
    assert read_metadata(path) == {"run": "3"}
    assert len(list(tmp_path.iterdir())) == 1
    if path.is_dir():
        assert len(list(path.iterdir())) == 5


def test_a_link_is_followed(tmp_path, frames):
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "link.gif"
    link.symlink_to(tmp_path / "elsewhere" / "real.gif")
    write_video(tmp_path / "elsewhere" / "real.gif", frames[:1], 1000, {})
    write_video(link, frames, 1000, {"run": "2"}, overwrite=True)
    assert link.is_symlink()
    assert read_metadata(tmp_path / "elsewhere" / "real.gif") == {"run": "2"}


def test_a_relative_path(tmp_path, frames, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert write_video("a.gif", frames, 1000, {}) == tmp_path / "a.gif"


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4"])
@pytest.mark.parametrize("duration", [0, 159, float("nan")])
def test_too_short_a_duration(tmp_path, frames, name, duration):
    with pytest.raises(UsageError, match="`video_duration`"):
        write_video(tmp_path / name, frames, duration, {})
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((2, 4, 4, 3), np.float32),
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((2, 4, 4, 4), np.uint8),
        np.zeros((0, 4, 4, 3), np.uint8),
    ],
)
def test_wrong_frames(tmp_path, wrong):
    with pytest.raises(ValueError, match="must be uint8"):
        write_video(tmp_path / "a.gif", wrong, 1000, {})


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), KeyboardInterrupt()]
)
@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("name", [*CLIP_NAMES, *PICTURE_NAMES])
def test_a_failure_while_writing_leaves_no_trace(
    tmp_path, frames, monkeypatch, name, there_before, error
):
    if name in PICTURE_NAMES:
        frames = frames[:1]
    path = tmp_path / "new" / name
    if there_before:
        write_video(path, frames, 1000, {"run": "1"})
    before = everything(tmp_path)

    def half_written(file: Path, data: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise error

    def half_encoded(file: Path, *_: object, **__: object) -> None:
        half_written(file, b"half")

    def half_streamed(file: IO[bytes], *_: object, **__: object) -> None:
        file.write(b"half")
        raise error

    monkeypatch.setattr(Path, "write_bytes", half_written)
    monkeypatch.setattr(write, "write_mp4", half_encoded)
    monkeypatch.setattr(write, "_write", half_streamed)
    expected = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else HotshotError
    with pytest.raises(expected) as caught:
        write_video(path, frames, 1000, {"run": "2"}, overwrite=True)
    if expected is HotshotError:
        assert f"{path} could not be written: No space left" in str(caught.value)
    monkeypatch.undo()
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", CLIP_NAMES)
def test_a_file_size_limit_of_the_system(tmp_path, name):
    # Like a full disk, but for this process and the ffmpeg that it starts.
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, hard))
    try:
        with pytest.raises(HotshotError, match=name):
            write_video(tmp_path / name, noise, 1000, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert everything(tmp_path) == {}


def test_ctrl_c_while_ffmpeg_runs(tmp_path, frames, monkeypatch):
    path = write_video(tmp_path / "a.mp4", frames[:1], 1000, {})
    there = everything(tmp_path)
    started: list[subprocess.Popen[bytes]] = []
    communicate = subprocess.Popen.communicate

    def interrupted(process: subprocess.Popen[bytes], *args: object, **kwargs: object) -> object:
        started.append(process)
        signal.raise_signal(signal.SIGINT)
        return communicate(process, *args, **kwargs)

    monkeypatch.setattr(subprocess.Popen, "communicate", interrupted)
    # A shell's background jobs ignore SIGINT, and so would Python.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            write_video(path, frames, 1000, {}, overwrite=True)
    finally:
        signal.signal(signal.SIGINT, before)
    assert everything(tmp_path) == there
    assert [process.poll() is not None for process in started] == [True]


def test_check_output_is_the_check_that_writing_makes(tmp_path, frames):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(UsageError) as early:
        check_output(tmp_path / "a.gif", 8, True)
    with pytest.raises(UsageError) as late:
        write_video(tmp_path / "a.gif", frames, 1000, {}, overwrite=True)
    assert str(early.value) == str(late.value)
