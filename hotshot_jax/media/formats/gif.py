"""Encoding clips as GIF: every frame with a palette and a time of its own.

Pillow compresses; the file is put together here, because Pillow's own animations merge equal
neighbours into one frame and cut times to hundredths one by one.
"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.errors import UsageError
from hotshot_jax.media.formats.gif_blocks import (
    comment_extension,
    graphic_control,
    loop_extension,
    parse_gif,
)
from hotshot_jax.media.formats.gif_dither import dither
from hotshot_jax.media.formats.gif_palette import choose_palette
from hotshot_jax.media.stored_frames import Frames

MOST_PIXELS_A_SIDE = 65535

_MOST_COLOURS = 256
_HELD = _MOST_COLOURS - 1
# Bounds the memory for a long clip, about 10 bytes a pixel.
_MOST_FRAMES_TOGETHER = 32


def encode_gif(frames: Frames, hundredths: Sequence[int], comment: bytes = b"") -> bytes:
    """The bytes that `write_gif` writes."""
    file = io.BytesIO()
    write_gif(file, frames, hundredths, comment)
    return file.getvalue()


def write_gif(
    file: BinaryIO, frames: Frames, hundredths: Sequence[int], comment: bytes = b""
) -> None:
    """Encode a clip that loops for ever, or one still picture, frame by frame.

    Args:
        file: open for writing.
        frames: uint8 [frames, height, width, 3]. A frame of up to 256 colours is stored exactly.
        hundredths: each frame's time in hundredths of a second.
        comment: stored in the file's comment block.

    Raises:
        UsageError: a side is longer than a GIF's can be.
    """
    count, height, width, _ = frames.shape
    if max(height, width) > MOST_PIXELS_A_SIDE:
        raise UsageError(
            f"A GIF of {width}x{height} pixels cannot be written: "
            f"a side has at most {MOST_PIXELS_A_SIDE}."
        )
    canvas = width.to_bytes(2, "little") + height.to_bytes(2, "little")
    for index, frame in enumerate(_reduce_colours(frames)):
        palette, pixels = _compress(frame)
        size_flag = len(palette).bit_length() - 3
        if index == 0:
            file.write(b"GIF89a" + canvas + bytes([0xF0 | size_flag, 0, 0]) + palette)
            file.write(loop_extension() if count > 1 else b"")
            file.write(comment_extension(comment))
            local_palette = b"\0"
        else:
            local_palette = bytes([0x80 | size_flag]) + palette
        file.write(graphic_control(hundredths[index], frame.held))
        file.write(b"," + bytes(4) + canvas + local_palette + pixels)
    file.write(b";")


@dataclass(frozen=True)
class _Frame:
    """Indices, uint8 [height, width], into colours, uint8 [colours, 3].

    Pixels of the index `held` are left as the frame before left them.
    """

    indices: npt.NDArray[np.uint8]
    colours: npt.NDArray[np.uint8]
    held: int | None = None


def _reduce_colours(frames: Frames) -> Iterator[_Frame]:
    """Keep frames of up to 256 colours as they are; choose and mix colours for the others."""
    waiting: list[npt.NDArray[np.uint8]] = []
    for frame in frames:
        exact = _exact(frame)
        if exact is None:
            waiting.append(frame)
        if waiting and (exact is not None or len(waiting) == _MOST_FRAMES_TOGETHER):
            yield from _mixed(np.stack(waiting))
            waiting.clear()
        if exact is not None:
            yield exact
    if waiting:
        yield from _mixed(np.stack(waiting))


def _mixed(frames: npt.NDArray[np.uint8]) -> Iterator[_Frame]:
    """Neighbours of too many colours, whose colours are chosen and mixed together."""
    palettes, errors = zip(
        *(choose_palette(frame, _MOST_COLOURS - 1) for frame in frames), strict=True
    )
    mixed = dither(frames, palettes, errors, held=_HELD)
    # A first frame that says it has a transparent index makes readers add an alpha channel.
    held = (_HELD if np.any(indices == _HELD) else None for indices in mixed)
    return map(_Frame, mixed, palettes, held)


def _exact(frame: npt.NDArray[np.uint8]) -> _Frame | None:
    """A frame of at most 256 colours with its own as the palette."""
    if Image.fromarray(frame).getcolors(_MOST_COLOURS) is None:
        return None
    packed = frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, indices = np.unique(packed, return_inverse=True)
    split = np.stack([colours >> 16, colours >> 8 & 255, colours & 255], axis=1)
    return _Frame(indices.reshape(packed.shape).astype(np.uint8), split.astype(np.uint8))


def _compress(frame: _Frame) -> tuple[bytes, bytes]:
    """The palette, of 2 to 256 colours, and the compressed pixels of a still GIF by Pillow."""
    image = Image.fromarray(frame.indices).convert("P")
    image.putpalette(frame.colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=0)
    still = parse_gif(buffer.getvalue())
    return still.palette, still.images[0].pixels
