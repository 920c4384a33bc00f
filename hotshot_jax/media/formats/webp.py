"""Encoding clips as animated WebP, every frame whole.

Pillow compresses each frame; the file is put together here, because libwebp's animation encoder
merges neighbours that are equal or nearly so into one frame.

Source: WebP Container Specification (Google), extended file format.
"""

import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import UsageError

MOST_PIXELS_A_SIDE = 16383

_LOSSY_QUALITY = 95
_ANIMATION_FLAG, _EXIF_FLAG = 0x02, 0x08
# Each frame replaces the whole canvas instead of being blended into it.
_DO_NOT_BLEND = 0x02


def encode_webp(
    frames: npt.NDArray[np.uint8],
    milliseconds: Sequence[int],
    exif: bytes = b"",
    *,
    lossless: bool = False,
) -> bytes:
    """Encode a clip that loops for ever, or one still picture.

    Args:
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
    chunks = [_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + canvas)]
    if count > 1:
        loop_for_ever = bytes(2)
        chunks.append(_chunk(b"ANIM", b"\xff\xff\xff\xff" + loop_for_ever))
    for index in range(count):
        picture = _compress(frames[index], lossless)
        if count > 1:
            time = milliseconds[index].to_bytes(3, "little")
            picture = _chunk(b"ANMF", bytes(6) + canvas + time + bytes([_DO_NOT_BLEND]) + picture)
        chunks.append(picture)
    if exif:
        chunks.append(_chunk(b"EXIF", exif))
    return _chunk(b"RIFF", b"WEBP" + b"".join(chunks))


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
