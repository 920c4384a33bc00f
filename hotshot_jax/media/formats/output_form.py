"""The forms that a clip or picture can be written in, told by the path's ending."""

import enum
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
