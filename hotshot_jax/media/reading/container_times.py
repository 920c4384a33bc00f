"""How long each frame of a WebP or PNG animation lasts, read without decoding a pixel.

Sources: WebP Container Specification (Google), extended file format; Portable Network Graphics
(Third Edition), W3C, section 11.3.6.
"""

from collections.abc import Iterator
from typing import BinaryIO

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
