"""A picture of some clips of a data set: a row for each, with its prompt."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.clip_source import EncodedClip
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.sheet import draw_sheet, spread_indices


def contact_sheet(clips: Sequence[EncodedClip], frames: int = 8) -> npt.NDArray[np.uint8]:
    """Draw a sheet.

    Args:
        clips: one a row; a clip that cannot be read has its error in place of frames.
        frames: at most so many of each clip, evenly spaced.

    Returns:
        uint8 [height, width, 3].
    """
    return draw_sheet([_row(clip, frames) for clip in clips])


def _row(clip: EncodedClip, most: int) -> tuple[str, list[npt.NDArray[np.uint8]]]:
    text = f"{clip.name}: {clip.prompt}"[:160].replace("\n", " ")
    try:
        return text, [clip.frame(index) for index in spread_indices(len(clip.pictures), most)]
    except HotshotError as error:
        return f"{text}  [{error}]", []
