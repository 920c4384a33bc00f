"""Whether an output path can be had, before anything expensive begins."""

import os
from pathlib import Path

from hotshot_jax.errors import UsageError
from hotshot_jax.media.ffmpeg import ffmpeg_executable
from hotshot_jax.media.formats.output_form import (
    CLIP_FORMS_TEXT,
    FRAME_FILE,
    ONE_FRAME_FORMS,
    AnyPath,
    OutputForm,
    output_form,
)
from hotshot_jax.media.metadata import is_result
from hotshot_jax.writing.places import check_no_dead_link
from hotshot_jax.writing.staging import probe_writable


def check_output(path: AnyPath, video_length: int, overwrite: bool) -> None:
    """Check that a result of `video_length` frames can be written to a path. Changes nothing.

    Raises:
        UsageError: an unknown ending, one that cannot hold that many frames, a folder where a file
            is expected or the other way round, something there already without `overwrite` or that
            this project did not write, a symbolic link to nothing, a folder with other files than
            frames in it, or a place that cannot be written to.
        HotshotError: MP4 without ffmpeg.
    """
    form = output_form(path)
    if video_length > 1 and form in ONE_FRAME_FORMS:
        raise UsageError(
            f"`output` {os.fspath(path)} holds one frame, but `video_length` is {video_length}. "
            f"Give {CLIP_FORMS_TEXT}."
        )
    target = output_target(path)
    check_replaced(path, overwrite)
    try:
        _check_writable(path, target)
    except OSError as error:
        raise UsageError(
            f"`output` {os.fspath(path)} cannot be written: {error.strerror or error}."
        ) from error
    if form is OutputForm.MP4:
        ffmpeg_executable()


def check_replaced(path: AnyPath, overwrite: bool) -> None:
    """Check that what is at an output path, if anything, may be replaced.

    Only results of this project are replaced, which are told by the settings stored in them.

    Raises:
        UsageError: as `check_output` does.
    """
    form, target = output_form(path), output_target(path)
    try:
        check_no_dead_link(os.path.expanduser(path))
    except UsageError as error:
        raise UsageError(f"`output` {os.fspath(path)}: {error}") from error
    try:
        if form is OutputForm.PNG_FOLDER:
            _check_folder(path, target, overwrite)
        else:
            _check_file(path, target, form, overwrite)
    except OSError as error:
        raise UsageError(
            f"`output` {os.fspath(path)} cannot be written: {error.strerror or error}."
        ) from error


def output_target(path: AnyPath) -> Path:
    """Give the absolute path that is written: symbolic links are followed, not replaced."""
    return Path(os.path.realpath(os.path.expanduser(path)))


def _check_file(path: AnyPath, target: Path, form: OutputForm, overwrite: bool) -> None:
    if target.is_dir():
        raise UsageError(
            f"`output` {os.fspath(path)} is a folder. Give the name of a file, "
            "or end it with / to write PNGs into a folder."
        )
    if not os.path.lexists(target):
        return
    if not target.is_file():
        raise UsageError(f"`output` {os.fspath(path)} is there already and is not a plain file.")
    if not overwrite:
        raise UsageError(
            f"`output` {os.fspath(path)} is there already. "
            "Give another name, or `overwrite` to replace it."
        )
    if not is_result(target, form):
        raise UsageError(
            f"`output` {os.fspath(path)} was not written by hotshot-jax and is not replaced. "
            "Give another name, or remove it yourself."
        )


def _check_folder(path: AnyPath, target: Path, overwrite: bool) -> None:
    if not os.path.lexists(target):
        return
    if not target.is_dir():
        raise UsageError(
            f"`output` {os.fspath(path)} is a file. "
            f"An output without an ending is a folder of PNGs; for a file give {CLIP_FORMS_TEXT}."
        )
    here = Path(os.path.realpath(os.curdir))
    if target == here or target in here.parents:
        raise UsageError(
            f"`output` {os.fspath(path)} is the folder that this runs in or above it. "
            "Name a folder of its own for the PNGs."
        )
    entries = sorted(target.iterdir())
    others = [
        entry.name
        for entry in entries
        if not FRAME_FILE.fullmatch(entry.name) or entry.is_symlink() or not entry.is_file()
    ]
    if others:
        raise UsageError(
            f"`output` {os.fspath(path)} is a folder with other files in it, such as {others[0]}. "
            "Name a new folder: this one would be replaced as a whole."
        )
    if entries and not overwrite:
        raise UsageError(
            f"`output` {os.fspath(path)} holds frames already. "
            "Give another name, or `overwrite` to replace them."
        )
    for entry in entries:
        if not is_result(entry, OutputForm.PNG):
            raise UsageError(
                f"`output` {os.fspath(path)}: {entry.name} was not written by hotshot-jax, so that "
                "the folder is not replaced. Give another name."
            )


def _check_writable(path: AnyPath, target: Path) -> None:
    folder = target.parent
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise UsageError(f"`output` {os.fspath(path)}: {folder} is a file, not a folder.")
    try:
        probe_writable(folder)
    except OSError as error:
        raise UsageError(
            f"`output` {os.fspath(path)}: the folder {folder} cannot be written to "
            f"({error.strerror or error})."
        ) from error
