"""The forms that a clip or picture can be written in, and how long its frames last in them."""

import enum
import math
import os
import re
from pathlib import Path
from typing import Final

from hotshot_jax.errors import UsageError

AnyPath = str | os.PathLike[str]


class OutputForm(enum.Enum):
    """A form that a clip or picture can be written in."""

    GIF = enum.auto()
    MP4 = enum.auto()
    WEBP = enum.auto()
    JPEG = enum.auto()
    PNG = enum.auto()
    PNG_FOLDER = enum.auto()


_FORMS: Final = {
    ".gif": OutputForm.GIF,
    ".mp4": OutputForm.MP4,
    ".webp": OutputForm.WEBP,
    ".jpg": OutputForm.JPEG,
    ".jpeg": OutputForm.JPEG,
    ".png": OutputForm.PNG,
}
TIMED_FORMS: Final = (OutputForm.GIF, OutputForm.MP4, OutputForm.WEBP)
"""Those whose frames have times."""
ONE_FRAME_FORMS: Final = (OutputForm.JPEG, OutputForm.PNG)
CLIP_FORMS_TEXT: Final = ".gif, .mp4, .webp, or a folder (no ending, or a final /) for PNGs"
FRAME_FILE: Final = re.compile(r"frame_\d{4,}\.png")


def output_form(path: AnyPath) -> OutputForm:
    """Tell the form of an output by its ending; no ending or a final slash means a folder of PNGs.

    Raises:
        UsageError: the path is empty or its ending is unknown; the message lists the endings.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UsageError(f"`output` is {text!r}; it must be the path of a file or folder.")
    if text.endswith(os.sep) or (os.altsep is not None and text.endswith(os.altsep)):
        return OutputForm.PNG_FOLDER
    if text == "-":
        raise UsageError(
            "`output` - is taken for standard output elsewhere; here it must be the path of a file "
            "or folder, which is printed there when it is written."
        )
    name = Path(text).name
    if name.lower() in _FORMS:
        raise UsageError(f"`output` {text}: the file needs a name before its ending {name}.")
    ending = Path(text).suffix
    if not ending:
        return OutputForm.PNG_FOLDER
    form = _FORMS.get(ending.lower())
    if form is None:
        raise UsageError(
            f"`output` {text}: unknown ending {ending}. Give {CLIP_FORMS_TEXT}; "
            "for one frame also .jpg, .jpeg or .png."
        )
    return form


def frame_file_name(index: int) -> str:
    """Name a frame in a folder of PNGs, counted from 0."""
    return f"frame_{index:04d}.png"


def frame_files(folder: Path) -> list[Path]:
    """List the frames in a folder of PNGs in their order."""
    files = [file for file in folder.iterdir() if FRAME_FILE.fullmatch(file.name)]
    return sorted(files, key=lambda file: int(re.sub(r"\D", "", file.name)))


# Browsers show frames of under two hundredths of a second as if they lasted ten.
SHORTEST_FRAME_MS: Final = 20
# The most that a GIF can store, 65535 hundredths of a second.
LONGEST_FRAME_MS: Final = 655_350


def check_duration(duration_ms: float, video_length: int) -> None:
    """Check that a clip's frames last neither too short nor too long for every file format.

    Raises:
        UsageError: naming `video_duration` and the bound.
    """
    shortest, longest = SHORTEST_FRAME_MS * video_length, LONGEST_FRAME_MS * video_length
    if not math.isfinite(duration_ms) or not shortest <= duration_ms <= longest:
        raise UsageError(
            f"`video_duration` is {duration_ms} milliseconds; for {video_length} frames it must be "
            f"from {shortest} ({SHORTEST_FRAME_MS} a frame) to {longest}."
        )


def frame_times(duration_ms: float, frames: int, unit_ms: int) -> list[int]:
    """Spread a duration over frames in whole units, as evenly as they allow.

    Eight frames over a second in hundredths last 12, 13, 12, 13, ...

    Args:
        duration_ms: of the whole clip.
        frames: their number.
        unit_ms: 10 for hundredths of a second, 1 for milliseconds.

    Returns:
        The frames' times, which add up to the duration rounded to a unit.
    """
    total = math.floor(duration_ms / unit_ms + 0.5)
    ends = [total * (index + 1) // frames for index in range(frames)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
