"""Writing a clip or picture, in the form that its path's ending asks for."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hotshot_jax.media.formats.frame_times import check_duration, frame_times
from hotshot_jax.media.formats.gif import encode_gif
from hotshot_jax.media.formats.mp4 import write_mp4
from hotshot_jax.media.formats.output_form import (
    TIMED_FORMS,
    AnyPath,
    OutputForm,
    frame_file_name,
    output_form,
)
from hotshot_jax.media.formats.still import encode_jpeg, encode_png
from hotshot_jax.media.formats.webp import encode_webp
from hotshot_jax.media.metadata import METADATA_KEY, exif_of_metadata, pack_metadata, read_metadata
from hotshot_jax.media.output import check_output, check_replaced, output_target
from hotshot_jax.writing.staging import staged_file, staged_folder

__all__ = ["check_output", "read_metadata", "write_video"]


def write_video(
    path: AnyPath,
    frames: npt.NDArray[np.uint8],
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
            comment = pack_metadata(metadata)
            write_mp4(staged, frames, duration_ms, comment, subject=str(target))
        else:
            staged.write_bytes(_encode(form, frames, duration_ms, metadata, lossless))
    return target


def _encode(
    form: OutputForm,
    frames: npt.NDArray[np.uint8],
    duration_ms: float,
    metadata: Mapping[str, str],
    lossless: bool,
) -> bytes:
    if form is OutputForm.GIF:
        hundredths = frame_times(duration_ms, len(frames), unit_ms=10)
        return encode_gif(frames, hundredths, pack_metadata(metadata).encode("ascii"))
    if form is OutputForm.WEBP:
        milliseconds = frame_times(duration_ms, len(frames), unit_ms=1)
        return encode_webp(frames, milliseconds, exif_of_metadata(metadata), lossless=lossless)
    if form is OutputForm.JPEG:
        return encode_jpeg(frames[0], pack_metadata(metadata).encode("ascii"))
    return _encode_png(frames[0], metadata)


def _encode_png(frame: npt.NDArray[np.uint8], metadata: Mapping[str, str]) -> bytes:
    return encode_png(frame, METADATA_KEY, pack_metadata(metadata))
