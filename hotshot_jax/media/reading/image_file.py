"""Opening a picture or animation with Pillow, and saying clearly why it cannot be.

How long each frame of a WebP or PNG animation lasts is read without decoding a pixel. Sources: WebP
Container Specification (Google), extended file format; Portable Network Graphics (Third Edition),
W3C, section 11.3.6.
"""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import MOST_PICTURE_PIXELS, open_plain

_RIFF_HEADER, _PNG_SIGNATURE = 12, 8
_CHUNK_HEADER = 8
# A frame's position, size, time and flags; a frame's number, size, position and time.
_ANMF_BYTES, _FCTL_BYTES = 16, 26


def webp_times(file: BinaryIO) -> list[float]:
    """Each frame's time in milliseconds.

    Args:
        file: an animated WebP. What is cut off is left out.
    """
    times = []
    file.seek(_RIFF_HEADER)
    while len(header := file.read(_CHUNK_HEADER)) == _CHUNK_HEADER:
        size = int.from_bytes(header[4:], "little")
        frame = file.read(_ANMF_BYTES) if header[:4] == b"ANMF" else b""
        if len(frame) == _ANMF_BYTES:
            times.append(float(int.from_bytes(frame[12:15], "little")))
        file.seek(size + size % 2 - len(frame), 1)
    return times


def png_times(file: BinaryIO) -> list[float]:
    """Each frame's time in milliseconds; 0 for a first picture that stands for the animation.

    Args:
        file: an animated PNG. What is cut off is left out.
    """
    times: list[float] = []
    for name, content in _png_chunks(file):
        if name == b"fcTL" and len(content) == _FCTL_BYTES:
            numerator = int.from_bytes(content[20:22])
            times.append(1000.0 * (numerator / (int.from_bytes(content[22:24]) or 100)))
        elif name == b"IDAT" and not times:
            times.append(0.0)
    return times


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Names of chunks, with the contents of those that control a frame."""
    checksum = 4
    file.seek(_PNG_SIGNATURE)
    while len(header := file.read(_CHUNK_HEADER)) == _CHUNK_HEADER:
        size, name = int.from_bytes(header[:4]), header[4:]
        content = file.read(_FCTL_BYTES) if name == b"fcTL" and size == _FCTL_BYTES else b""
        yield name, content
        file.seek(size - len(content) + checksum, 1)


# Not every format that Pillow knows: some of them start other programs. It may lack some of these.
_FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "PPM")
# How the times of frames are read without decoding them; other formats have none, or AVIF.
_TIMES = {"WEBP": webp_times, "PNG": png_times}


@contextlib.contextmanager
def opened_image(path: Path) -> Iterator[Image.Image]:
    """Open a picture or animation; errors while it is read in the body become clear too.

    Raises:
        HotshotError: it is no picture, cut short, damaged, or too large to be decoded safely. The
            message names the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow tells of damage on the terminal, too.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            Image.init()
            formats = [name for name in _FORMATS if name in Image.OPEN]
            with open_plain(path) as stream, Image.open(stream, formats=formats) as image:
                if image.width * image.height > MOST_PICTURE_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except HotshotError:
        raise
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise HotshotError(
            f"{path} has too many pixels to be decoded safely. Make it smaller first."
        ) from error
    except Image.UnidentifiedImageError as error:
        raise HotshotError(
            f"{path} is not a picture or clip that can be read here. "
            "It must be a GIF, PNG, JPEG, WebP, BMP, TIFF, MP4 or WebM file."
        ) from error
    # Pillow's readers raise errors of every class on files that are cut short or damaged.
    except Exception as error:
        if isinstance(error, OSError) and error.strerror is not None:
            raise HotshotError(f"{path} cannot be read: {error.strerror}.") from error
        reason = str(error) or type(error).__name__
        raise HotshotError(f"{path} is cut short or damaged: {reason}") from error


def upright_size(image: Image.Image) -> tuple[int, int]:
    """Give (width, height) as a camera's orientation tag wants the picture shown."""
    width, height = image.size
    # Pillow decodes a whole PNG in search of a tag at its end.
    if image.format == "PNG" and "exif" not in image.info:
        return width, height
    sideways = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (height, width) if sideways else (width, height)


def frame_count(image: Image.Image) -> int:
    """Give the number of frames, 1 for a picture."""
    return int(getattr(image, "n_frames", 1))


def frame_durations(image: Image.Image, path: Path) -> list[float]:
    """Give each frame's time in milliseconds, 0 where the file states none.

    Args:
        image: what Pillow opened. Frames are decoded if it is an AVIF.
        path: its file, in which the times of other kinds are looked up.

    Raises:
        ValueError: the file does not hold the times of all frames.
    """
    count = frame_count(image)
    if image.format == "AVIF":
        return [_decoded_duration(image, index) for index in range(count)]
    reader = _TIMES.get(image.format or "")
    if reader is None:
        return [0.0] * count
    with open_plain(path) as file:
        times = reader(file)
    if len(times) != count:
        raise ValueError(f"it announces {count} frames and holds {len(times)}")
    return times


def _decoded_duration(image: Image.Image, index: int) -> float:
    image.seek(index)
    image.load()
    return float(image.info.get("duration", 0))


def rgb_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """Decode the current frame upright, with its transparent parts on white.

    Grey values of 16 bits, as depth maps have, keep their upper eight.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: the pixels are floating-point numbers, whose range is unknown.
    """
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save it with 8 or 16 bits")
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    return np.asarray(upright.convert("RGB"))
