"""Opening clips: GIF, animated WebP, MP4, WebM, a folder of pictures, or a single picture."""

import math
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.limits import MOST_FILE_BYTES
from hotshot_jax.files.plain_file import open_plain, read_bytes
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
from hotshot_jax.media.reading.read_video import open_video, video_container

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
