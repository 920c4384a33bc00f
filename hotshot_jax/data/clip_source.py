"""What every source of training clips offers, wherever its clips lie."""

import contextlib
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import (
    MOST_FILE_BYTES,
    MOST_PICTURE_PIXELS,
    open_plain,
    read_bytes,
)
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


OnBadSample = Literal["error", "skip"]

# Six bytes a clip: all that the loader must know of it beforehand.
CLIP_DTYPE: Final = np.dtype([("width", "<u2"), ("height", "<u2"), ("frames", "<u2")])

ClipTable = npt.NDArray[np.void]
"""[samples] of `CLIP_DTYPE`."""


@dataclass(frozen=True)
class EncodedClip:
    """A clip whose frames are decoded one by one, only those that are needed.

    Attributes:
        name: what messages call it: a folder, or a record of a data set.
        prompt: the text that describes it.
        pictures: its frames in their order.
        picture_names: what messages call each frame.
        fps: frames a second; None where nobody said.
    """

    name: str
    prompt: str
    pictures: Sequence[EncodedPicture]
    picture_names: Sequence[str]
    fps: float | None = None

    def frame(self, index: int) -> npt.NDArray[np.uint8]:
        """Decode a frame to uint8 RGB [height, width, 3].

        Raises:
            HotshotError: it is empty, damaged or no picture.
        """
        return read_picture(self.pictures[index], self.picture_names[index])

    def digest(self, indices: Iterable[int]) -> str:
        """A hash of the prompt and of what is stored of some frames, in hexadecimal.

        It changes when a file does, so that what was computed from the clip can be kept under it.

        Raises:
            HotshotError: a frame cannot be read.
        """
        digest = hashlib.sha256(self.prompt.encode())
        for index in indices:
            data = picture_bytes(self.pictures[index], self.picture_names[index])
            digest.update(len(data).to_bytes(8, "little") + data)
        return digest.hexdigest()


class ClipSource(Protocol):
    """Random access to clips. Threads may call it at the same time."""

    @property
    def table(self) -> ClipTable:
        """Size and number of frames of each clip, without opening any."""
        ...

    def __len__(self) -> int:
        """The number of clips."""
        ...

    def __getitem__(self, index: int) -> EncodedClip:
        """Open a clip.

        Raises:
            HotshotError: it is gone or cannot be read.
        """
        ...


@dataclass(frozen=True)
class Problem:
    """Why a sample cannot be used.

    Attributes:
        sample: name of the sample.
        message: the file, what is wrong with it and what was expected.
    """

    sample: str
    message: str


def refuse_or_skip(
    problems: Sequence[Problem], total: int, where: str, on_bad_sample: OnBadSample
) -> None:
    """Tell all problems of a data set at once, unless bad samples are to be skipped.

    Args:
        problems: of all samples.
        total: number of samples, good and bad.
        where: the data set, as the user named it.
        on_bad_sample: `skip` accepts any number of problems but not that no sample is left.

    Raises:
        HotshotError: there are problems and they are not to be skipped, or no good sample is left.
    """
    bad = len({problem.sample for problem in problems})
    if not problems or (on_bad_sample == "skip" and bad < total):
        return
    lines = [f"{where}: {bad} of {total} samples cannot be used."]
    lines += [f"  {problem.message}" for problem in problems]
    if bad < total:
        lines.append("Repair or remove them, or train without them by `on_bad_sample` skip.")
    else:
        lines.append("No sample is left to train on.")
    raise HotshotError("\n".join(lines))


def clip_table(widths: npt.ArrayLike, heights: npt.ArrayLike, frames: npt.ArrayLike) -> ClipTable:
    """Make a table of clips from three arrays [samples]."""
    columns = [np.asarray(column) for column in (widths, heights, frames)]
    table = np.empty(len(columns[0]), CLIP_DTYPE)
    for name, column in zip(("width", "height", "frames"), columns, strict=True):
        table[name] = np.minimum(column, np.iinfo(np.uint16).max)
    return table


def table_fingerprint(table: ClipTable) -> int:
    """A number that tells data sets apart by the sizes and order of their clips.

    It takes one pass over six bytes a clip, so that a resumed run can afford it.
    """
    return zlib.crc32(np.ascontiguousarray(table).view(np.uint8).data, len(table))
