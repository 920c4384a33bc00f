"""Writing a clip or picture, in the form that its path's ending asks for, where that can be had."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import UsageError
from hotshot_jax.media.ffmpeg import ffmpeg_executable
from hotshot_jax.media.formats.gif import write_gif
from hotshot_jax.media.formats.mp4 import write_mp4
from hotshot_jax.media.formats.output_form import (
    CLIP_FORMS_TEXT,
    FRAME_FILE,
    ONE_FRAME_FORMS,
    TIMED_FORMS,
    AnyPath,
    OutputForm,
    check_duration,
    frame_file_name,
    frame_times,
    output_form,
)
from hotshot_jax.media.formats.still import encode_jpeg, encode_png
from hotshot_jax.media.formats.webp import write_webp
from hotshot_jax.media.metadata import (
    METADATA_KEY,
    exif_of_metadata,
    is_result,
    pack_metadata,
    read_metadata,
)
from hotshot_jax.media.stored_frames import Frames
from hotshot_jax.writing.places import check_no_dead_link
from hotshot_jax.writing.staging import probe_writable, staged_file, staged_folder


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


__all__ = ["check_output", "read_metadata", "write_video"]


def write_video(
    path: AnyPath,
    frames: Frames,
    duration_ms: float,
    metadata: Mapping[str, str],
    overwrite: bool = False,
    *,
    lossless: bool = False,
) -> Path:
    """Write a clip, or one frame as a picture.

    The ending of `path` tells the form: .gif, .mp4, .webp; no ending or a final slash for a folder
    of PNGs; for one frame also .jpg, .jpeg and .png. The file or folder appears under its name when
    it is complete, and replaces what was there; a failure leaves that as it was.

    Args:
        path: missing parent folders are made.
        frames: uint8 [frames, height, width, 3].
        duration_ms: of the whole clip. Frame times add up to it, in a GIF to the nearest hundredth
            of a second, and no frame is merged into its neighbour. Pictures have none.
        metadata: stored in the file; `read_metadata` reads it back.
        overwrite: replace what is there, if it is a result of this project.
        lossless: for .webp, keep every pixel.

    Returns:
        The path as it was written, absolute.

    Raises:
        UsageError: as `check_output` and `check_duration` do.
        HotshotError: writing failed.
        ValueError: frames are of another shape or dtype.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or frames.size == 0:
        raise ValueError(
            f"frames are {frames.dtype} {list(frames.shape)}; "
            "they must be uint8 [frames, height, width, 3], none of them 0"
        )
    check_output(path, len(frames), overwrite)
    form, target = output_form(path), output_target(path)
    if form in TIMED_FORMS:
        check_duration(duration_ms, len(frames))

    def may_replace(_: Path) -> None:
        check_replaced(path, overwrite)

    if form is OutputForm.PNG_FOLDER:
        with staged_folder(target, may_replace=may_replace) as folder:
            for index, frame in enumerate(frames):
                (folder / frame_file_name(index)).write_bytes(_encode_png(frame, metadata))
        return target
    with staged_file(target, may_replace=may_replace) as staged:
        if form is OutputForm.MP4:
            write_mp4(staged, frames, duration_ms, pack_metadata(metadata), subject=str(target))
        else:
            with staged.open("wb") as file:
                _write(file, form, frames, duration_ms, metadata, lossless)
    return target


def _write(
    file: BinaryIO,
    form: OutputForm,
    frames: Frames,
    duration_ms: float,
    metadata: Mapping[str, str],
    lossless: bool,
) -> None:
    if form is OutputForm.GIF:
        hundredths = frame_times(duration_ms, len(frames), unit_ms=10)
        write_gif(file, frames, hundredths, pack_metadata(metadata).encode("ascii"))
    elif form is OutputForm.WEBP:
        milliseconds = frame_times(duration_ms, len(frames), unit_ms=1)
        write_webp(file, frames, milliseconds, exif_of_metadata(metadata), lossless=lossless)
    elif form is OutputForm.JPEG:
        file.write(encode_jpeg(frames[0], pack_metadata(metadata).encode("ascii")))
    else:
        file.write(_encode_png(frames[0], metadata))


def _encode_png(frame: npt.NDArray[np.uint8], metadata: Mapping[str, str]) -> bytes:
    return encode_png(frame, METADATA_KEY, pack_metadata(metadata))
