"""The blocks of a GIF file, found without decoding a pixel.

Source: Graphics Interchange Format, Version 89a (CompuServe, 1990).
"""

import struct
from dataclasses import dataclass

_TRAILER, _EXTENSION, _IMAGE = 0x3B, 0x21, 0x2C
_GRAPHIC_CONTROL, _APPLICATION, _COMMENT = 0xF9, 0xFF, 0xFE


class GifError(ValueError):
    """The file breaks off or is no GIF; the message goes on from the file's name."""


@dataclass(frozen=True)
class GifImage:
    """One image of a GIF: its time in hundredths of a second, and its compressed pixels.

    `pixels` begins with the minimum code size and ends with the empty block. `right` and `lower`
    say where it ends on the canvas, or beyond it.
    """

    hundredths: int
    pixels: bytes
    right: int
    lower: int


@dataclass(frozen=True)
class GifBlocks:
    """What the blocks of a GIF say: canvas in pixels, the global palette, images and comment."""

    width: int
    height: int
    palette: bytes
    images: tuple[GifImage, ...]
    comment: bytes

    @property
    def extent(self) -> tuple[int, int]:
        """(width, height) of the canvas that holds every image in full, as decoders make it."""
        return (
            max(self.width, *(image.right for image in self.images)),
            max(self.height, *(image.lower for image in self.images)),
        )


class _Cursor:
    def __init__(self, data: bytes) -> None:
        self.data, self.position = data, 0

    def take(self, count: int) -> bytes:
        taken = self.data[self.position : self.position + count]
        if len(taken) < count:
            raise GifError("is cut short: it ends in the middle of a frame or block.")
        self.position += count
        return taken

    def palette(self, flags: int) -> bytes:
        return self.take(3 << ((flags & 7) + 1)) if flags & 0x80 else b""

    def blocks(self) -> bytes:
        parts = []
        while size := self.take(1)[0]:
            parts.append(self.take(size))
        return b"".join(parts)

    def ended(self) -> bool:
        return self.position >= len(self.data)


def parse_gif(data: bytes, *, most_images: int | None = None) -> GifBlocks:
    """Walk through the blocks of a GIF file.

    A missing trailer after a whole block is let pass, as viewers do.

    Args:
        data: the file.
        most_images: stop after one more than this number.

    Raises:
        GifError: the file is no GIF, or it ends or goes astray within a block.
    """
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        raise GifError("is not a GIF.")
    cursor = _Cursor(data)
    cursor.take(6)
    header = cursor.take(7)
    palette = cursor.palette(header[4])
    images: list[GifImage] = []
    comment, hundredths = b"", 0
    while not cursor.ended() and (most_images is None or len(images) <= most_images):
        kind = cursor.take(1)[0]
        if kind == _TRAILER:
            break
        if kind == _EXTENSION:
            label, content = cursor.take(1)[0], cursor.blocks()
            if label == _GRAPHIC_CONTROL and len(content) >= 4:
                hundredths = int.from_bytes(content[1:3], "little")
            elif label == _COMMENT and not comment:
                comment = content
        elif kind == _IMAGE:
            place = cursor.take(9)
            cursor.palette(place[8])
            left, upper, width, height = struct.unpack("<4H", place[:8])
            start = cursor.position
            cursor.take(1)
            cursor.blocks()
            pixels = data[start : cursor.position]
            images.append(GifImage(hundredths, pixels, left + width, upper + height))
            hundredths = 0
        elif kind != 0:
            raise GifError(f"is damaged: byte {cursor.position - 1} begins no block of a GIF.")
    if not images:
        raise GifError("is a GIF without a frame.")
    return GifBlocks(
        width=int.from_bytes(header[0:2], "little"),
        height=int.from_bytes(header[2:4], "little"),
        palette=palette,
        images=tuple(images),
        comment=comment,
    )


def extension(label: int, blocks: list[bytes]) -> bytes:
    """Spell an extension block from its sub-blocks of 1 to 255 bytes each."""
    return (
        bytes([_EXTENSION, label])
        + b"".join(bytes([len(block)]) + block for block in blocks)
        + b"\0"
    )


def comment_extension(comment: bytes) -> bytes:
    """Spell a comment; none if it is empty."""
    blocks = [comment[start : start + 255] for start in range(0, len(comment), 255)]
    return extension(_COMMENT, blocks) if blocks else b""


def loop_extension() -> bytes:
    """Spell the application block by which an animation runs for ever."""
    return extension(_APPLICATION, [b"NETSCAPE2.0", b"\1\0\0"])


def graphic_control(hundredths: int, transparent: int | None = None) -> bytes:
    """Spell the block that gives the next image its time and leaves it standing afterwards.

    Pixels of the index `transparent` show what stood there before.
    """
    flags = 1 << 2 | (transparent is not None)
    index = bytes([transparent or 0])
    return extension(_GRAPHIC_CONTROL, [bytes([flags]) + hundredths.to_bytes(2, "little") + index])
