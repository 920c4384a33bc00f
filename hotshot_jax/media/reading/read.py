"""Opening clips: GIF, animated WebP, a video by ffmpeg, a folder of pictures, or one picture."""

import itertools
import math
import os
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.plain_file import (
    MOST_FILE_BYTES,
    MOST_PICTURE_PIXELS,
    MOST_READING_SECONDS,
    open_plain,
    read_bytes,
)
from hotshot_jax.media.ffmpeg import FfmpegError, file_url, run_ffmpeg
from hotshot_jax.media.formats.gif_blocks import GifError, parse_gif
from hotshot_jax.media.reading.clip import Clip, ReadLimits
from hotshot_jax.media.reading.image_file import (
    frame_count,
    frame_durations,
    opened_image,
    rgb_pixels,
    upright_size,
)
from hotshot_jax.media.reading.key_frames import key_frame_indices

_PICTURE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"mif1", b"msf1")
_PNM = re.compile(rb"P[1-7fF]\s")
# Pixels that are not square are made so by width.
SQUARE_PIXELS = "scale=w=round(iw*sar):h=ih:flags=bicubic+accurate_rnd+full_chroma_int,setsar=1"


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
    for decoding in (["-c", "copy"], ["-vf", SQUARE_PIXELS]):
        output = ["-f", "framecrc"]
        listed = _ffmpeg(path, container, decoding, limits.most_frames + 1, output).decode()
        width, height, durations = frame_times(listed)
        if not durations:
            raise HotshotError(f"{path} has a video track without a frame in it.")
        limits.check_size(path, width, height)
        limits.check_count(path, len(durations))
        limits.check_pixels(path, len(durations) * width * height, limits.most_video_pixels)

    def decode(indices: Sequence[int]) -> list[npt.NDArray[np.uint8]]:
        filters = ["-vf", f"{selection(indices)},{SQUARE_PIXELS}"]
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24"]
        pixels = _ffmpeg(path, container, filters, len(indices), raw)
        if len(pixels) != len(indices) * height * width * 3:
            raise HotshotError(f"{path} is damaged: not all of its frames can be decoded.")
        return list(np.frombuffer(pixels, np.uint8).reshape(-1, height, width, 3))

    return Clip(path, width, height, durations, False, decode)


def frame_times(listed: str) -> tuple[int, int, tuple[float, ...]]:
    """Width, height, and how long each frame lasts in milliseconds.

    Args:
        listed: what ffmpeg's `framecrc` wrote of the frames.
    """
    time_base, width, height = Fraction(0), 0, 0
    starts: list[int] = []
    last_duration = 0
    for line in listed.splitlines():
        if line.startswith("#tb 0:"):
            time_base = Fraction(line.split(":")[1].strip())
        elif line.startswith("#dimensions 0:"):
            width, height = (int(side) for side in line.split(":")[1].split("x"))
        elif not line.startswith("#"):
            _, _, start, duration, *_ = line.split(",")
            starts.append(int(start))
            last_duration = int(duration)
    ticks = [later - earlier for earlier, later in itertools.pairwise(starts)]
    if starts:
        ticks.append(last_duration or (ticks[-1] if ticks else 0))
    return width, height, tuple(float(1000 * time_base * tick) for tick in ticks)


def selection(indices: Sequence[int]) -> str:
    """ffmpeg's filter that lets frames of some numbers pass.

    Args:
        indices: in ascending order, at least one.
    """
    return f"select={_any_of([_within(run) for run in _even_runs(indices)])}"


def _even_runs(indices: Sequence[int]) -> list[range]:
    """The same numbers as ranges, since the length of a command is limited."""
    runs: list[range] = []
    for index in indices:
        last = runs[-1] if runs else None
        if last is not None and len(last) == 1:
            runs[-1] = range(last.start, index + 1, index - last.start)
        elif last is not None and last.stop - 1 + last.step == index:
            runs[-1] = range(last.start, index + 1, last.step)
        else:
            runs.append(range(index, index + 1))
    return runs


def _within(run: range) -> str:
    first, last = run.start, run.stop - 1
    if len(run) < 3:
        return "+".join(f"eq(n\\,{index})" for index in run)
    stride = "" if run.step == 1 else f"*not(mod(n-{first}\\,{run.step}))"
    return f"between(n\\,{first}\\,{last}){stride}"


def _any_of(terms: Sequence[str]) -> str:
    """Their sum, in halves: ffmpeg takes no more than a hundred terms in a row."""
    if len(terms) == 1:
        return terms[0]
    half = len(terms) // 2
    return f"({_any_of(terms[:half])}+{_any_of(terms[half:])})"


def source_arguments(path: Path, container: str) -> list[str]:
    """How ffmpeg is told to read a video, and to take damage for an error."""
    # -xerror makes damage an error where ffmpeg would show what it can and go on.
    source = ["-xerror", "-max_pixels", str(MOST_PICTURE_PIXELS), "-protocol_whitelist", "file"]
    return [*source, "-f", container, "-i", file_url(path)]


def explained(error: FfmpegError, path: Path) -> HotshotError:
    """What ffmpeg's failure to read a video means."""
    if "matches no streams" in error.log:
        return HotshotError(f"{path} has no video track, or its header is cut short.")
    lines = error.log.splitlines()
    reason = lines[0].rpartition("] ")[2] if lines else str(error)
    return HotshotError(f"{path} is cut short or damaged; ffmpeg says: {reason}")


def _ffmpeg(path: Path, container: str, decoding: list[str], most: int, output: list[str]) -> bytes:
    frames = ["-map", "0:V:0", "-fps_mode", "passthrough", *decoding, "-frames:v", str(most)]
    try:
        return run_ffmpeg(
            [*source_arguments(path, container), *frames, *output, "pipe:1"],
            subject=str(path),
            most_seconds=MOST_READING_SECONDS,
        )
    except FfmpegError as error:
        raise explained(error, path) from error


PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".avif")

# Formats of one picture a file, though some cameras put a second one beside it.
_PHOTOGRAPH_FORMATS = ("JPEG", "MPO")
_DEFAULT_LIMITS = ReadLimits()


def open_clip(path: str | os.PathLike[str], limits: ReadLimits = _DEFAULT_LIMITS) -> Clip:
    """Open a clip. What it is, is told by its content, not by its ending.

    Raises:
        UsageError: there is no such file or folder.
        HotshotError: it cannot be read: empty, not a clip, cut short, damaged, beyond the limits, a
            video without a video track or without ffmpeg. The message names the file.
    """
    file = Path(path)
    try:
        if not os.path.lexists(file):
            raise UsageError(f"{file} does not exist.")
        if not file.exists():
            raise HotshotError(f"{file} is a link to a file that does not exist.")
        if file.is_dir():
            return _open_folder(file, limits)
        with open_plain(file) as stream:
            head = stream.read(16)
        if not head:
            raise HotshotError(f"{file} is empty: it has zero bytes.")
        container = video_container(head)
        if container is not None:
            return open_video(file, container, limits)
        if head.startswith(b"GIF8"):
            return _open_gif(file, limits)
        return _open_picture(file, limits)
    except OSError as error:
        raise HotshotError(f"{file} cannot be read: {error.strerror or error}.") from error


def read_key_frames(
    clip: Clip, video_length: int, target_duration_ms: float
) -> npt.NDArray[np.uint8]:
    """Read the frames that stand for a clip; a single picture is held still.

    Args:
        clip: from `open_clip`.
        video_length: the number of frames.
        target_duration_ms: the time that they should span; see `key_frame_indices`.

    Returns:
        uint8 [video_length, height, width, 3].

    Raises:
        UsageError: the clip has too few frames.
        HotshotError: it is damaged.
    """
    if clip.is_picture:
        return np.broadcast_to(clip.frames([0]), (video_length, clip.height, clip.width, 3))
    try:
        indices = key_frame_indices(clip.durations_ms, video_length, target_duration_ms)
    except UsageError as error:
        raise UsageError(f"{clip.path}: {error}") from error
    return clip.frames(indices)


def natural_order(path: Path) -> list[tuple[int, int, str]]:
    """Key that sorts frame_2.png before frame_10.png."""
    parts = re.findall(r"[0-9]+|[^0-9]+", path.name.lower())
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _open_gif(path: Path, limits: ReadLimits) -> Clip:
    try:
        blocks = parse_gif(read_bytes(path, MOST_FILE_BYTES), most_images=limits.most_frames)
    except GifError as error:
        raise HotshotError(f"{path} {error}") from error
    limits.check_size(path, blocks.width, blocks.height)
    limits.check_size(path, *blocks.extent)
    limits.check_count(path, len(blocks.images))
    pixels = len(blocks.images) * math.prod(blocks.extent)
    limits.check_pixels(path, pixels, limits.most_pixels)
    durations = tuple(10.0 * image.hundredths for image in blocks.images)
    return _animation(path, blocks.width, blocks.height, durations)


def _open_picture(path: Path, limits: ReadLimits) -> Clip:
    with opened_image(path) as image:
        width, height = upright_size(image)
        limits.check_size(path, width, height)
        count = 1 if image.format in _PHOTOGRAPH_FORMATS else frame_count(image)
        limits.check_count(path, count)
        if count > 1:
            # An AVIF has to be decoded for its times, too.
            passes = 2 if image.format == "AVIF" else 1
            limits.check_pixels(path, passes * count * width * height, limits.most_pixels)
            return _animation(path, width, height, tuple(frame_durations(image, path)))
        # Decoded here, so that a picture cut short is refused when it is opened.
        pixels = rgb_pixels(image)
    return Clip(path, width, height, (0.0,), True, lambda _: [pixels])


def _open_folder(path: Path, limits: ReadLimits) -> Clip:
    files = [
        file
        for file in path.iterdir()
        if file.suffix.lower() in PICTURE_ENDINGS
        and not file.name.startswith(".")
        and file.is_file()
    ]
    if not files:
        raise HotshotError(
            f"{path} holds no pictures. It must hold the frames of a clip as "
            f"{', '.join(PICTURE_ENDINGS)}."
        )
    files.sort(key=natural_order)
    limits.check_count(path, len(files))
    first_size = None
    for file in files:
        with opened_image(file) as image:
            size = upright_size(image)
        limits.check_size(file, *size)
        first_size = first_size or size
        if size != first_size:
            raise HotshotError(
                f"{file} is {size[0]}x{size[1]} pixels, but {files[0].name} is "
                f"{first_size[0]}x{first_size[1]}. All frames of a folder must have one size."
            )
    assert first_size is not None

    def decode(indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        for index in indices:
            with opened_image(files[index]) as image:
                pixels = rgb_pixels(image)
            yield pixels

    return Clip(path, *first_size, (0.0,) * len(files), False, decode)


def _animation(path: Path, width: int, height: int, durations: tuple[float, ...]) -> Clip:
    def decode(indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        with opened_image(path) as image:
            for index in indices:
                image.seek(index)
                # The pages of a TIFF have sizes of their own.
                ReadLimits().check_size(path, *image.size)
                yield rgb_pixels(image)[:height, :width]

    return Clip(path, width, height, durations, False, decode)
