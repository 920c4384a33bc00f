"""Decoding one frame, from a file or from a record, with errors that name it."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.limits import MOST_FILE_BYTES, MOST_PICTURE_PIXELS
from hotshot_jax.files.plain_file import open_plain, read_bytes
from hotshot_jax.media.reading.image_file import rgb_pixels, upright_size

# A frame as a source hands it over: a file, the bytes of one, or pixels [height, width, 3].
EncodedPicture = Path | bytes | npt.NDArray[np.uint8]

PICTURE_ENDINGS: Final = (".jpg", ".jpeg", ".png", ".webp")

_FORMATS: Final = ("JPEG", "PNG", "WEBP")


def picture_bytes(picture: EncodedPicture, name: str) -> bytes:
    """What is stored of a picture, undecoded.

    Raises:
        HotshotError: the file cannot be read.
    """
    if isinstance(picture, np.ndarray):
        return repr(picture.shape).encode() + picture.tobytes()
    if isinstance(picture, bytes):
        return picture
    try:
        return read_bytes(picture, MOST_FILE_BYTES)
    except OSError as error:
        raise HotshotError(f"{name}: cannot be read: {error.strerror or error}") from error


def picture_size(picture: EncodedPicture, name: str) -> tuple[int, int]:
    """Read (width, height) in pixels from the header of a picture, without decoding it.

    Raises:
        HotshotError: as `read_picture`.
    """
    if isinstance(picture, np.ndarray):
        return picture.shape[1], picture.shape[0]
    with _opened(picture, name) as image:
        if image.format == "PNG" and "exif" not in image.info:
            # Pillow decodes all of a PNG in search of an orientation behind its pixels.
            return image.size
        return upright_size(image)


def read_picture(picture: EncodedPicture, name: str) -> npt.NDArray[np.uint8]:
    """Decode a picture: upright, in RGB, transparent parts on white.

    Args:
        picture: a file, the bytes of one, or pixels, which are returned as they are.
        name: what an error message calls it.

    Returns:
        uint8 [height, width, 3].

    Raises:
        HotshotError: it is empty, no JPEG, PNG or WebP, too large to be decoded safely, cut short
            or damaged, or cannot be read.
    """
    if isinstance(picture, np.ndarray):
        return picture
    with _opened(picture, name) as image:
        image.load()
        if image.mode == "RGB" and not image.info.keys() & {"exif", "transparency", "xmp"}:
            # Nothing to turn or blend: spares two copies, which cost half as much as decoding.
            return np.asarray(image)
        return rgb_pixels(image)


@contextlib.contextmanager
def _opened(picture: Path | bytes, name: str) -> Iterator[Image.Image]:
    try:
        with io.BytesIO(picture) if isinstance(picture, bytes) else open_plain(picture) as stream:
            if not stream.read(1):
                raise HotshotError(f"{name}: is empty (zero bytes)")
            stream.seek(0)
            with Image.open(stream, formats=_FORMATS) as image:
                # Filters of warnings are shared by all threads, so that bombs are refused here
                # rather than by turning Pillow's warning into an error.
                if image.width * image.height > MOST_PICTURE_PIXELS:
                    raise Image.DecompressionBombError
                yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise HotshotError(f"{name}: has too many pixels to be decoded safely") from error
    except Image.UnidentifiedImageError as error:
        raise HotshotError(f"{name}: is not a JPEG, PNG or WebP picture") from error
    except HotshotError:
        raise
    # Pillow's readers raise errors of every class on files that are cut short or damaged.
    except Exception as error:
        # Pillow's own errors are of the same class as the operating system's, but have no number.
        if isinstance(error, OSError) and error.errno is not None:
            raise HotshotError(f"{name}: cannot be read: {error.strerror}") from error
        raise HotshotError(f"{name}: is cut short or damaged ({error})") from error
