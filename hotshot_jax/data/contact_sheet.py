"""A picture of some clips of a data set: a row for each, with its prompt."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hotshot_jax.data.clip_source import EncodedClip
from hotshot_jax.errors import HotshotError

_HEIGHT: Final = 96
_GAP: Final = 6
_TEXT: Final = 16
_BACKGROUND: Final = (250, 250, 250)
_INK: Final = (30, 30, 30)


def contact_sheet(clips: Sequence[EncodedClip], frames: int = 8) -> npt.NDArray[np.uint8]:
    """Draw a sheet.

    Args:
        clips: one a row; a clip that cannot be read has its error in place of frames.
        frames: at most so many of each clip, evenly spaced.

    Returns:
        uint8 [height, width, 3].
    """
    rows = [_row(clip, frames) for clip in clips]
    width = max((sum(image.width + _GAP for image in images) for _, images in rows), default=0)
    width = max(width, 480) + _GAP
    sheet = Image.new("RGB", (width, len(rows) * (_HEIGHT + _TEXT + _GAP) + _GAP), _BACKGROUND)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for number, (text, images) in enumerate(rows):
        left, top = _GAP, _GAP + number * (_HEIGHT + _TEXT + _GAP)
        draw.text((left, top), text, _INK, font)
        for image in images:
            sheet.paste(image, (left, top + _TEXT))
            left += image.width + _GAP
    return np.asarray(sheet)


def _row(clip: EncodedClip, most: int) -> tuple[str, list[Image.Image]]:
    count = len(clip.pictures)
    chosen = np.unique(np.linspace(0, count - 1, min(most, count)).round().astype(int))
    text = f"{clip.name}: {clip.prompt}"[:160].replace("\n", " ")
    try:
        frames = [Image.fromarray(clip.frame(int(index))) for index in chosen]
    except HotshotError as error:
        return f"{text}  [{error}]", []
    return text, [
        frame.resize((max(1, round(frame.width * _HEIGHT / frame.height)), _HEIGHT))
        for frame in frames
    ]
