"""What an output path asks for, and whether it can be had, before anything expensive begins."""

import contextlib
import enum
import os
import re
from pathlib import Path
from typing import Final

from hotshot_jax.errors import UsageError
from hotshot_jax.media.ffmpeg import ffmpeg_executable
from hotshot_jax.media.staging import staging_name

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
_ONE_FRAME_FORMS: Final = (OutputForm.JPEG, OutputForm.PNG)
_CLIP_FORMS_TEXT: Final = ".gif, .mp4, .webp, or a folder (no ending, or a final /) for PNGs"
_FRAME_FILE: Final = re.compile(r"frame_\d{4,}\.png")


def output_form(path: AnyPath) -> OutputForm:
    """Tell the form of an output by its ending; no ending or a final slash means a folder of PNGs.

    Raises:
        UsageError: the path is empty or its ending is unknown; the message lists the endings.
    """
    text = os.fspath(path)
    if not text or "\0" in text:
        raise UsageError(f"--output is {text!r}; it must be the path of a file or folder.")
    if text.endswith(os.sep) or (os.altsep is not None and text.endswith(os.altsep)):
        return OutputForm.PNG_FOLDER
    name = Path(text).name
    if name.lower() in _FORMS:
        raise UsageError(f"--output {text}: the file needs a name before its ending {name}.")
    ending = Path(text).suffix
    if not ending:
        return OutputForm.PNG_FOLDER
    form = _FORMS.get(ending.lower())
    if form is None:
        raise UsageError(
            f"--output {text}: unknown ending {ending}. Give {_CLIP_FORMS_TEXT}; "
            "for one frame also .jpg, .jpeg or .png."
        )
    return form


def check_output(path: AnyPath, video_length: int, overwrite: bool) -> None:
    """Check that a result of `video_length` frames can be written to a path. Changes nothing.

    Raises:
        UsageError: an unknown ending, one that cannot hold that many frames, a folder where a file
            is expected or the other way round, something there already without `overwrite`, a
            folder with other files than frames in it, or a place that cannot be written to.
        HotshotError: MP4 without ffmpeg.
    """
    form = output_form(path)
    if video_length > 1 and form in _ONE_FRAME_FORMS:
        raise UsageError(
            f"--output {os.fspath(path)} holds one frame, but --video_length is {video_length}. "
            f"Give {_CLIP_FORMS_TEXT}."
        )
    target = output_target(path)
    try:
        if form is OutputForm.PNG_FOLDER:
            _check_folder(path, target, overwrite)
        else:
            _check_file(path, target, overwrite)
        _check_writable(path, target)
    except OSError as error:
        raise UsageError(
            f"--output {os.fspath(path)} cannot be written: {error.strerror or error}."
        ) from error
    if form is OutputForm.MP4:
        ffmpeg_executable()


def output_target(path: AnyPath) -> Path:
    """Give the absolute path that is written: symbolic links are followed, not replaced."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def frame_file_name(index: int) -> str:
    """Name a frame in a folder of PNGs, counted from 0."""
    return f"frame_{index:04d}.png"


def frame_files(folder: Path) -> list[Path]:
    """List the frames in a folder of PNGs in their order."""
    files = [file for file in folder.iterdir() if _FRAME_FILE.fullmatch(file.name)]
    return sorted(files, key=lambda file: int(re.sub(r"\D", "", file.name)))


def _check_file(path: AnyPath, target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(
            f"--output {os.fspath(path)} is a folder. Give the name of a file, "
            "or end it with / to write PNGs into a folder."
        )
    if not os.path.lexists(target):
        return
    if not target.is_file():
        raise UsageError(f"--output {os.fspath(path)} is there already and is not a plain file.")
    if not overwrite:
        raise UsageError(
            f"--output {os.fspath(path)} is there already. "
            "Give another name, or --overwrite to replace it."
        )


def _check_folder(path: AnyPath, target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(
            f"--output {os.fspath(path)} is a file. "
            f"An output without an ending is a folder of PNGs; for a file give {_CLIP_FORMS_TEXT}."
        )
    here = Path(os.path.realpath(os.curdir))
    if target == here or target in here.parents:
        raise UsageError(
            f"--output {os.fspath(path)} is the folder that this runs in or above it. "
            "Name a folder of its own for the PNGs."
        )
    names = [entry.name for entry in target.iterdir()]
    others = sorted(name for name in names if not _FRAME_FILE.fullmatch(name))
    if others:
        raise UsageError(
            f"--output {os.fspath(path)} is a folder with other files in it, such as {others[0]}. "
            "Name a new folder: this one would be replaced as a whole."
        )
    if names and not overwrite:
        raise UsageError(
            f"--output {os.fspath(path)} holds frames already. "
            "Give another name, or --overwrite to replace them."
        )


def _check_writable(path: AnyPath, target: Path) -> None:
    folder = target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"--output {os.fspath(path)}: {folder} is a file, not a folder.")
    # A permission bit says little on network drives and to the superuser; a file tells.
    probe = staging_name(folder)
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except OSError as error:
        raise UsageError(
            f"--output {os.fspath(path)}: the folder {folder} cannot be written to "
            f"({error.strerror or error})."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()
