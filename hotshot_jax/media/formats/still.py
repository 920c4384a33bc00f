"""Encoding single pictures as PNG and JPEG."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin

_JPEG_QUALITY = 95
# What one comment segment holds: its 16-bit length counts itself.
_MOST_BYTES_A_SEGMENT = 65533


def encode_png(frame: npt.NDArray[np.uint8], key: str, text: str) -> bytes:
    """Encode a picture, uint8 [height, width, 3], with a text of ASCII under a key."""
    information = PngImagePlugin.PngInfo()
    information.add_text(key, text)
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "PNG", pnginfo=information)
    return buffer.getvalue()


def encode_jpeg(frame: npt.NDArray[np.uint8], comment: bytes) -> bytes:
    """Encode a picture, uint8 [height, width, 3], at quality 95 without chroma subsampling.

    The comment goes into as many comment segments as it needs.
    """
    buffer = io.BytesIO()
    Image.fromarray(frame).save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
    data = buffer.getvalue()
    # The start of the image is followed by the JFIF segment, which must stay first.
    position = 4 + int.from_bytes(data[4:6], "big")
    segments = []
    for start in range(0, len(comment), _MOST_BYTES_A_SEGMENT):
        part = comment[start : start + _MOST_BYTES_A_SEGMENT]
        segments.append(b"\xff\xfe" + (len(part) + 2).to_bytes(2, "big") + part)
    return data[:position] + b"".join(segments) + data[position:]
