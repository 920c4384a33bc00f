"""The files of a job: what it was given, the frames that were made, and the forms asked for."""

import threading
from collections.abc import Mapping
from pathlib import Path

from hotshot_jax.errors import HotshotError
from hotshot_jax.media.write import write_video
from hotshot_jax.server.kept_frames import KeptFrames

CLIP_FORMS: Mapping[str, str] = {
    "gif": "image/gif",
    "mp4": "video/mp4",
    "webp": "image/webp",
}
"""Media types of what a clip can be had as, the first by default."""

PICTURE_FORMS: Mapping[str, str] = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
"""Likewise of one frame."""


def forms_of(kind: str) -> Mapping[str, str]:
    """The media types of what a job can be had as, by form.

    Args:
        kind: `video` or `image`.
    """
    return PICTURE_FORMS if kind == "image" else CLIP_FORMS


_FRAMES = "frames.kept"
_UPLOADS = "uploads"
_making = threading.Lock()


def keep(folder: Path, result: KeptFrames, form: str) -> None:
    """Keeps a result, with the form of it that is asked for most.

    Args:
        folder: of the job.
        result: what was made.
        form: one of `CLIP_FORMS` or `PICTURE_FORMS`.

    Raises:
        HotshotError: the system refuses.
    """
    _write(folder, result, form)
    # The last of them: a folder that has it has all.
    result.write(folder / _FRAMES)


def has_form(folder: Path, form: str) -> bool:
    """Whether the file of a form is there."""
    return _path(folder, form).is_file()


def in_form(folder: Path, form: str) -> Path:
    """The file of a result in a form, written now if nobody asked for that before.

    Args:
        folder: of the job.
        form: one of `CLIP_FORMS` or `PICTURE_FORMS`.

    Raises:
        HotshotError: the result is gone or damaged, or the system refuses.
    """
    path = _path(folder, form)
    if not path.is_file():
        # One at a time: they take memory, and the same form may be asked for twice at once.
        with _making:
            if not path.is_file():
                _write(folder, KeptFrames.read(folder / _FRAMES), form)
    return path


def uploads(folder: Path) -> dict[str, Path]:
    """What a job was given, by the names that the API has for it."""
    place = folder / _UPLOADS
    return {path.name: path for path in sorted(place.iterdir())} if place.is_dir() else {}


def uploads_folder(folder: Path) -> Path:
    """The place for what a job is given."""
    return folder / _UPLOADS


def _write(folder: Path, result: KeptFrames, form: str) -> None:
    if form not in CLIP_FORMS and form not in PICTURE_FORMS:
        raise HotshotError(f"There is no form {form!r}.")
    # The lock of a place is for one writer; this folder has one.
    path = _path(folder, form)
    write_video(path, result.frames, result.duration_ms, result.metadata, overwrite=True)


def _path(folder: Path, form: str) -> Path:
    return folder / f"clip.{form}"
