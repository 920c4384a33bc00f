"""Pictures of many frames: rows of them, each under a line of text."""

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

_HEIGHT: Final = 96
_GAP: Final = 6
_TEXT: Final = 16
_WIDTH: Final = 480
BACKGROUND: Final = (250, 250, 250)
INK: Final = (30, 30, 30)


def draw_sheet(
    rows: Sequence[tuple[str, Iterable[npt.NDArray[np.uint8]]]],
) -> npt.NDArray[np.uint8]:
    """Draw a sheet.

    Args:
        rows: a line of text and the frames under it, uint8 `[height, width, 3]` of any size.

    Returns:
        uint8 [height, width, 3].
    """
    drawn = [(text, [_small(frame) for frame in frames]) for text, frames in rows]
    width = max((sum(image.width + _GAP for image in images) for _, images in drawn), default=0)
    width = max(width, _WIDTH) + _GAP
    sheet = Image.new("RGB", (width, len(drawn) * (_HEIGHT + _TEXT + _GAP) + _GAP), BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (text, images) in enumerate(drawn):
        left, top = _GAP, _GAP + number * (_HEIGHT + _TEXT + _GAP)
        draw.text((left, top), text, INK, font)
        for image in images:
            sheet.paste(image, (left, top + _TEXT))
            left += image.width + _GAP
    return np.asarray(sheet)


def spread_indices(count: int, most: int) -> list[int]:
    """All of `count` indices, or at most so many of them, evenly spaced from first to last."""
    return [int(index) for index in np.linspace(0, count - 1, min(most, count)).round()]


def _small(frame: npt.NDArray[np.uint8]) -> Image.Image:
    image = Image.fromarray(frame)
    return image.resize((max(1, round(image.width * _HEIGHT / image.height)), _HEIGHT))
