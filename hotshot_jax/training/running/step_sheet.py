"""The validation clips of a run in one picture: a row a step, to see what is learned."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.media.sheet import draw_sheet, spread_indices
from hotshot_jax.writing.staging import replace_anything, staged_file

SHEET = "sheet.png"
_FOLDER = "step-"
_MOST_STEPS = 24
_MOST_FRAMES = 16
_CONTROL = "-control"


def step_folder(folder: Path, step: int) -> Path:
    """Where the validation clips of a step are, below the folder of them all."""
    return folder / f"{_FOLDER}{step:07d}"


def write_sheet_of_steps(folder: Path) -> None:
    """Draws the clips of all steps, or of some evenly spaced ones, as `sheet.png` beside them.

    Args:
        folder: with a folder for each step; where there is none, nothing is written.

    Raises:
        HotshotError: a clip cannot be read, or the sheet not be written.
        OSError: likewise.
    """
    steps = sorted(each for each in folder.glob(f"{_FOLDER}*") if each.is_dir())
    shown = [steps[index] for index in spread_indices(len(steps), _MOST_STEPS)] if steps else []
    rows = [(f"step {int(each.name.removeprefix(_FOLDER))}", list(_frames(each))) for each in shown]
    if not rows:
        return
    with staged_file(folder / SHEET, may_replace=replace_anything) as staged:
        Image.fromarray(draw_sheet(rows)).save(staged, "PNG")


def _frames(folder: Path) -> Iterator[npt.NDArray[np.uint8]]:
    clips = [each for each in sorted(folder.glob("*.gif")) if not each.stem.endswith(_CONTROL)]
    each_shows = max(1, _MOST_FRAMES // max(1, len(clips)))
    for file in clips[:_MOST_FRAMES]:
        clip = open_clip(file)
        yield from clip.frames(spread_indices(len(clip.durations_ms), each_shows))
