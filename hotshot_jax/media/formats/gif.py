"""Encoding clips as GIF: every frame whole, with a palette and a time of its own.

Pillow quantises and compresses; the file is put together here, because Pillow's own animations
merge equal neighbours into one frame and cut times to hundredths one by one.
"""

import io
import math
from collections.abc import Sequence

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

MOST_PIXELS_A_SIDE = 65535

_MOST_COLOURS = 256
# Choosing colours takes time by the number of different ones, and a part of the pixels tells them
# as well: measured on film clips and gradients of 672x384 pixels, no error grows by it.
_MOST_PIXELS_SAMPLED = 2**16


def encode_gif(
    frames: npt.NDArray[np.uint8], hundredths: Sequence[int], comment: bytes = b""
) -> bytes:
    """Encode a clip that loops for ever, or one still picture.

    Args:
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
    parts = []
    for index in range(count):
        palette, pixels = _compress(quantize(frames[index]))
        size_flag = len(palette).bit_length() - 3
        if index == 0:
            parts.append(b"GIF89a" + canvas + bytes([0xF0 | size_flag, 0, 0]) + palette)
            parts.append(loop_extension() if count > 1 else b"")
            parts.append(comment_extension(comment))
            local_palette = b"\0"
        else:
            local_palette = bytes([0x80 | size_flag]) + palette
        parts.append(graphic_control(hundredths[index]))
        parts.append(b"," + bytes(4) + canvas + local_palette + pixels)
    parts.append(b";")
    return b"".join(parts)


def quantize(frame: npt.NDArray[np.uint8]) -> Image.Image:
    """Reduce a frame to a palette of at most 256 colours.

    Up to 256 colours are kept as they are. More are chosen by maximum coverage and mixed by
    Floyd-Steinberg dithering: plain median cut, Pillow's default, shows steps in smooth gradients.

    Args:
        frame: uint8 [height, width, 3].

    Returns:
        A Pillow image of mode P.
    """
    image = Image.fromarray(frame)
    if image.getcolors(_MOST_COLOURS) is None:
        stride = math.ceil(math.sqrt(image.width * image.height / _MOST_PIXELS_SAMPLED))
        sample = Image.fromarray(np.ascontiguousarray(frame[::stride, ::stride]))
        palette = sample.quantize(_MOST_COLOURS, method=Image.Quantize.MAXCOVERAGE)
        return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    packed = frame.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    colours, index = np.unique(packed, return_inverse=True)
    exact = Image.fromarray(index.astype(np.uint8).reshape(packed.shape)).convert("P")
    exact.putpalette(b"".join(int(colour).to_bytes(3, "big") for colour in colours))
    return exact


def _compress(image: Image.Image) -> tuple[bytes, bytes]:
    """The palette, of 2 to 256 colours, and the compressed pixels of a still GIF by Pillow."""
    buffer = io.BytesIO()
    image.save(buffer, "GIF", optimize=False, interlace=0)
    still = parse_gif(buffer.getvalue())
    return still.palette, still.images[0].pixels
