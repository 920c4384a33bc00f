"""Encoding clips as MP4 with ffmpeg."""

import re
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.files.plain_file import MOST_READING_SECONDS, check_plain
from hotshot_jax.media.ffmpeg import file_url, run_ffmpeg
from hotshot_jax.media.stored_frames import Frames


def write_mp4(
    path: Path, frames: Frames, duration_ms: float, comment: str, *, subject: str
) -> None:
    """Encode a clip as H.264 with 4:2:0 chroma, which every player takes.

    That chroma needs even sides: an odd one is made longer by repeating its last row or column.

    Args:
        path: the file, overwritten.
        frames: uint8 [frames, height, width, 3].
        duration_ms: of the whole clip, rounded to a millisecond.
        comment: one line of ASCII, stored as the file's comment.
        subject: what an error message is about.

    Raises:
        HotshotError: ffmpeg is missing or fails, for want of disk space for example.
    """
    count, height, width, _ = frames.shape
    longer = (height % 2, width % 2)
    height, width = height + longer[0], width + longer[1]
    rate = Fraction(1000 * count, max(1, round(duration_ms)))
    # In a file of its own: a command line has a length limit.
    with tempfile.TemporaryDirectory(prefix="hotshot-jax-") as folder:
        metadata = Path(folder) / "metadata"
        metadata.write_text(f";FFMETADATA1\ncomment={_escape(comment)}\n", encoding="ascii")
        raw_video = ["-f", "rawvideo", "-pixel_format", "rgb24", "-video_size", f"{width}x{height}"]
        raw_video += ["-framerate", f"{rate.numerator}/{rate.denominator}", "-i", "pipe:0"]
        settings = ["-f", "ffmetadata", "-i", file_url(metadata), "-map_metadata", "1"]
        # The colour matrix is named, for players guess it by the size of the picture otherwise.
        filters = "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"
        filters += ",setparams=range=tv:colorspace=bt709:color_primaries=bt709:color_trc=bt709"
        colour = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
        codec = ["-c:v", "libx264", "-preset", "slow", "-crf", "16", "-pix_fmt", "yuv420p"]
        output = ["-movflags", "+faststart", "-f", "mp4", "-y", file_url(path)]
        arguments = [*raw_video, *settings, "-map", "0:v", "-vf", filters, *codec]
        arguments += [*colour, "-color_range", "tv", *output]
        run_ffmpeg(arguments, subject=subject, feed=(_even(frame, *longer) for frame in frames))


def _even(frame: npt.NDArray[np.uint8], rows: int, columns: int) -> npt.NDArray[np.uint8]:
    if rows or columns:
        frame = np.pad(frame, ((0, rows), (0, columns), (0, 0)), mode="edge")
    return frame


def read_mp4_comment(path: Path) -> str:
    """Read the comment of a video file, empty if it has none.

    Raises:
        OSError: it cannot be opened.
        HotshotError: ffmpeg is missing or cannot read the file.
    """
    check_plain(path)
    arguments = ["-f", "mov", "-i", file_url(path), "-f", "ffmetadata", "pipe:1"]
    text = run_ffmpeg(arguments, subject=str(path), most_seconds=MOST_READING_SECONDS).decode(
        errors="replace"
    )
    found = re.search(r"^comment=((?:[^\\\n]|\\.)*)$", text, re.MULTILINE | re.DOTALL)
    return re.sub(r"\\(.)", r"\1", found[1], flags=re.DOTALL) if found else ""


def _escape(text: str) -> str:
    return re.sub(r"([=;#\\\n])", r"\\\1", text)
