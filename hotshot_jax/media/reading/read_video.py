"""Opening MP4, WebM, Matroska, QuickTime and AVI files with ffmpeg."""

import itertools
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.limits import MOST_PICTURE_PIXELS, MOST_READING_SECONDS
from hotshot_jax.media.ffmpeg import FfmpegError, file_url, run_ffmpeg
from hotshot_jax.media.reading.clip import Clip, ReadLimits

_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_PNM = re.compile(rb"P[1-7fF]\s")
# Pixels that are not square are made so by width.
_SQUARE_PIXELS = "scale=w=round(iw*sar):h=ih:flags=bicubic+accurate_rnd+full_chroma_int,setsar=1"


def video_container(head: bytes) -> str | None:
    """Tell ffmpeg's name of a video container by the first 16 bytes of a file; None if it is none.

    ffmpeg's own guess is not asked, since it takes text and playlists, which name other files, for
    videos too.
    """
    # A picture of the PNM formats begins with any text as its comment.
    if _PNM.match(head):
        return None
    if head[4:8] == b"ftyp":
        return None if head[8:12] in _PICTURE_BRANDS else "mov"
    if head[4:8] in (b"moov", b"mdat", b"wide", b"free", b"skip"):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "avi"
    return None


def open_video(path: Path, container: str, limits: ReadLimits) -> Clip:
    """Open a video's first video track; cover pictures do not count as one.

    Raises:
        HotshotError: no video track, cut short, damaged, beyond the limits, or ffmpeg is missing.
    """
    # Compressed frames first, as they lie in the file: what may be too much is not decoded.
    for decoding in (["-c", "copy"], ["-vf", _SQUARE_PIXELS]):
        time_base, width, height, starts, last_duration = _frames(
            path, container, decoding, limits.most_frames + 1
        )
        if not starts:
            raise HotshotError(f"{path} has a video track without a frame in it.")
        limits.check_size(path, width, height)
        limits.check_count(path, len(starts))
        limits.check_pixels(path, len(starts) * width * height, limits.most_video_pixels)
    ticks = [later - earlier for earlier, later in itertools.pairwise(starts)]
    ticks.append(last_duration or (ticks[-1] if ticks else 0))
    durations = tuple(float(1000 * time_base * tick) for tick in ticks)

    def decode(indices: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        chosen = "+".join(f"eq(n\\,{index})" for index in indices)
        filters = ["-vf", f"select={chosen},{_SQUARE_PIXELS}"]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
        pixels = _ffmpeg(path, container, filters, len(indices), raw)
        if len(pixels) != len(indices) * height * width * 3:
            raise HotshotError(f"{path} is damaged: not all of its frames can be decoded.")
        return list(np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3))

    return Clip(path, width, height, durations, False, decode)


def _frames(
    path: Path, container: str, decoding: list[str], most: int
) -> tuple[Fraction, int, int, list[int], int]:
    """Time base, width, height, when each frame starts, and how long the last lasts."""
    checksums = _ffmpeg(path, container, decoding, most, ["-f", "framecrc"]).decode()
    time_base, width, height = Fraction(0), 0, 0
    starts: list[int] = []
    last_duration = 0
    for line in checksums.splitlines():
        if line.startswith("#tb 0:"):
            time_base = Fraction(line.split(":")[1].strip())
        elif line.startswith("#dimensions 0:"):
            width, height = (int(side) for side in line.split(":")[1].split("x"))
        elif not line.startswith("#"):
            _, _, start, duration, *_ = line.split(",")
            starts.append(int(start))
            last_duration = int(duration)
    return time_base, width, height, starts, last_duration


def _ffmpeg(path: Path, container: str, decoding: list[str], most: int, output: list[str]) -> bytes:
    # -xerror makes damage an error where ffmpeg would show what it can and go on.
    source = ["-xerror", "-max_pixels", str(MOST_PICTURE_PIXELS), "-protocol_whitelist", "file"]
    source += ["-f", container, "-i", file_url(path)]
    frames = ["-map", "0:V:0", "-fps_mode", "passthrough", *decoding, "-frames:v", str(most)]
    try:
        return run_ffmpeg(
            [*source, *frames, *output, "pipe:1"],
            subject=str(path),
            most_seconds=MOST_READING_SECONDS,
        )
    except FfmpegError as error:
        if "matches no streams" in error.log:
            raise HotshotError(f"{path} has no video track, or its header is cut short.") from error
        lines = error.log.splitlines()
        reason = lines[0].rpartition("] ")[2] if lines else str(error)
        raise HotshotError(f"{path} is cut short or damaged; ffmpeg says: {reason}") from error
