"""Encoding clips as animated WebP, every frame whole.

Pillow compresses each frame; the file is put together here, because libwebp's animation encoder
merges neighbours that are equal or nearly so into one frame.

Source: WebP Container Specification (Google), extended file format.
"""

import io
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import UsageError
from hotshot_jax.media.stored_frames import Frames

MOST_PIXELS_A_SIDE = 16383

_LOSSY_QUALITY = 95
_ANIMATION_FLAG, _EXIF_FLAG = 0x02, 0x08
# Each frame replaces the whole canvas instead of being blended into it.
_DO_NOT_BLEND = 0x02


def encode_webp(
    frames: Frames, milliseconds: Sequence[int], exif: bytes = b"", *, lossless: bool = False
) -> bytes:
    """The bytes that `write_webp` writes."""
    file = io.BytesIO()
    write_webp(file, frames, milliseconds, exif, lossless=lossless)
    return file.getvalue()


def write_webp(
    file: BinaryIO,
    frames: Frames,
    milliseconds: Sequence[int],
    exif: bytes = b"",
    *,
    lossless: bool = False,
) -> None:
    """Encode a clip that loops for ever, or one still picture, frame by frame.

    Args:
        file: open for writing, in which one can go back.
        frames: uint8 [frames, height, width, 3].
        milliseconds: each frame's time.
        exif: stored in the file's EXIF chunk.
        lossless: keep every pixel; otherwise quality 95 of 100.

    Raises:
        UsageError: a side is longer than a WebP's can be.
    """
    count, height, width, _ = frames.shape
    if max(height, width) > MOST_PIXELS_A_SIDE:
        raise UsageError(
            f"A WebP of {width}x{height} pixels cannot be written: "
            f"a side has at most {MOST_PIXELS_A_SIDE}."
        )
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    flags = (_ANIMATION_FLAG if count > 1 else 0) | (_EXIF_FLAG if exif else 0)
    file.write(b"RIFF" + bytes(4) + b"WEBP")
    file.write(_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas))
    if count > 1:
        loop_for_ever = bytes(2)
        file.write(_chunk(b"ANIM", b"\xff\xff\xff\xff" + loop_for_ever))
    for index, frame in enumerate(frames):
        picture = _compress(frame, lossless)
        if count > 1:
            time = milliseconds[index].to_bytes(3, "little")
            picture = _chunk(b"ANMF", bytes(6) + canvas + time + bytes([_DO_NOT_BLEND]) + picture)
        file.write(picture)
    if exif:
        file.write(_chunk(b"EXIF", exif))
    # How long it is stands at the beginning, and is known at the end.
    size = file.tell() - 8
    file.seek(4)
    file.write(size.to_bytes(4, "little"))


def _compress(frame: npt.NDArray[np.uint8], lossless: bool) -> bytes:
    """The VP8 or VP8L chunk of a still WebP by Pillow."""
    buffer = io.BytesIO()
    Image.fromarray(frame).save(
        buffer, "WEBP", lossless=lossless, quality=_LOSSY_QUALITY, method=4, exact=True
    )
    data, position = buffer.getvalue(), 12
    while data[position : position + 4] not in (b"VP8 ", b"VP8L"):
        size = int.from_bytes(data[position + 4 : position + 8], "little")
        position += 8 + size + size % 2
    size = int.from_bytes(data[position + 4 : position + 8], "little")
    return data[position : position + 8 + size + size % 2]


def _chunk(name: bytes, content: bytes) -> bytes:
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)
