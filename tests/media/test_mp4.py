import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.media import ffmpeg
from hotshot_jax.media.formats.mp4 import read_mp4_comment, write_mp4


def decode(path: Path, height: int, width: int) -> np.ndarray:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += ["-vf", "scale=in_color_matrix=bt709"]
    command += ["-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    return np.frombuffer(raw, np.uint8).reshape(-1, height, width, 3)


@pytest.mark.parametrize(
    ("count", "duration"), [(8, 1000), (8, 999), (7, 1001), (24, 480), (1, 1000), (3, 10_000)]
)
def test_frames_and_duration(tmp_path, frames, count, duration):
    path = tmp_path / "clip.mp4"
    write_mp4(path, np.resize(frames, (count, 24, 40, 3)), duration, "", subject="clip")
    got_count, seconds = imageio_ffmpeg.count_frames_and_secs(path)
    assert got_count == count
    # ffmpeg prints hundredths of a second, cut off.
    assert seconds == pytest.approx(duration / 1000, abs=0.0101)


def test_equal_neighbours_stay_frames_of_their_own(tmp_path, equal_frames):
    path = tmp_path / "clip.mp4"
    write_mp4(path, equal_frames, 1000, "", subject="clip")
    assert len(decode(path, 24, 40)) == 8


@pytest.mark.parametrize(("height", "width"), [(24, 40), (23, 39), (24, 39), (23, 40), (1, 1)])
def test_odd_sizes_are_padded(tmp_path, frames, height, width):
    path = tmp_path / "clip.mp4"
    frames = frames[:, :height, :width]
    write_mp4(path, frames, 1000, "", subject="clip")
    got = decode(path, height + height % 2, width + width % 2)
    assert len(got) == 8
    # Chroma of half the size costs most on steep small gradients; measured 4.4 of 255.
    assert np.sqrt(np.mean((got[:, :height, :width] * 1.0 - frames) ** 2)) < 6


def test_colours(tmp_path):
    path = tmp_path / "clip.mp4"
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 30), (255, 255, 255), (0, 0, 0)]
    frames = np.array(colours, np.uint8).reshape(-1, 1, 1, 3).repeat(32, 1).repeat(32, 2)
    write_mp4(path, frames, 1000, "", subject="clip")
    # Rounding in YUV costs up to 2; the other colour matrix would move pure green by 50.
    np.testing.assert_allclose(decode(path, 32, 32), frames, rtol=0, atol=4)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-hide_banner", "-i", str(path)]
    description = subprocess.run(command, check=False, capture_output=True, text=True).stderr
    assert "yuv420p(tv, bt709" in description


def test_comment(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    comment = '{"a": "= ; # \\\\ \\u00e9"}' + "long " * 40_000
    write_mp4(path, frames, 1000, comment, subject="clip")
    # Muxing keeps blanks within a comment but not at its end.
    assert read_mp4_comment(path).rstrip() == comment.rstrip()


def test_no_comment(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    write_mp4(path, frames, 1000, "", subject="clip")
    assert read_mp4_comment(path) == ""


def test_failure_names_the_subject_and_the_reason(tmp_path, frames):
    with pytest.raises(HotshotError, match=r"^clip: ffmpeg failed: .*[Dd]irectory"):
        write_mp4(tmp_path / "missing" / "clip.mp4", frames, 1000, "", subject="clip")


@pytest.mark.parametrize("executable", ["/nowhere/ffmpeg", "no-such-ffmpeg"])
def test_without_ffmpeg(tmp_path, frames, monkeypatch, executable):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", executable)
    with pytest.raises(HotshotError, match="ffmpeg, which was not found"):
        write_mp4(tmp_path / "clip.mp4", frames, 1000, "", subject="clip")


def test_ffmpeg_that_cannot_be_run(tmp_path, frames, monkeypatch):
    broken = tmp_path / "ffmpeg"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "ffmpeg_executable", lambda: str(broken))
    with pytest.raises(HotshotError, match="could not be started"):
        write_mp4(tmp_path / "clip.mp4", frames, 1000, "", subject="clip")


def test_ffmpeg_is_out_of_reach_of_ctrl_c(tmp_path, monkeypatch):
    script = tmp_path / "ffmpeg"
    script.write_text(f"#!/bin/sh\nexec {sys.executable} -c 'import os; print(os.getsid(0))'\n")
    script.chmod(0o755)
    monkeypatch.setattr(ffmpeg, "ffmpeg_executable", lambda: str(script))
    assert int(ffmpeg.run_ffmpeg([], subject="")) != os.getsid(0)
