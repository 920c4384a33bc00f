"""The settings of a run, stored in the file that it made.

They are one line of ASCII JSON, `{"hotshot_jax": {...}}`, whatever the form: the comment of a GIF,
JPEG or MP4, the EXIF image description of a WebP, the text "hotshot_jax" of a PNG.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

from PIL import ExifTags, Image

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.media.formats.gif_blocks import GifError, parse_gif
from hotshot_jax.media.formats.mp4 import read_mp4_comment
from hotshot_jax.media.formats.output_form import OutputForm, frame_files, output_form
from hotshot_jax.media.reading.image_file import opened_image

METADATA_KEY = "hotshot_jax"
SETTINGS_KEY = "settings"
"""Under which a result has the settings of the run, as JSON."""


def pack_metadata(metadata: Mapping[str, str]) -> str:
    """Spell settings as one line of ASCII; any text survives, lone surrogates included."""
    return json.dumps({METADATA_KEY: dict(metadata)})


def unpack_metadata(text: str) -> dict[str, str] | None:
    """Read settings back; None if the text is something else."""
    try:
        content = parse_json(text)
    except ParseError:
        return None
    metadata = content.get(METADATA_KEY) if isinstance(content, dict) else None
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        return None
    return metadata


def exif_of_metadata(metadata: Mapping[str, str]) -> bytes:
    """Put settings into the image description of an EXIF block."""
    exif = Image.Exif()
    exif[ExifTags.Base.ImageDescription] = pack_metadata(metadata)
    return exif.tobytes().removeprefix(b"Exif\0\0")


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the settings that `write_video` stored in a file, or in a folder of PNGs.

    The form is told by the file's ending.

    Raises:
        UsageError: there is no such file, or its ending is unknown.
        HotshotError: it cannot be read, or holds no settings.
    """
    file = Path(path)
    if not file.exists():
        raise UsageError(f"{file} does not exist.")
    if file.is_dir():
        frames = frame_files(file)
        if not frames:
            raise HotshotError(f"{file} holds no frames written by hotshot-jax.")
        file = frames[0]
    try:
        text = _read_text(file, output_form(file))
    except OSError as error:
        raise HotshotError(f"{file} cannot be read: {error.strerror or error}.") from error
    metadata = unpack_metadata(text)
    if metadata is None:
        raise HotshotError(
            f"{file} holds no settings of hotshot-jax: another program wrote it, "
            "or saved it again without them."
        )
    return metadata


def is_result(file: Path, form: OutputForm) -> bool:
    """Whether `write_video` wrote a file of a form; one that is empty has nothing to lose.

    Raises:
        OSError: it cannot be read.
    """
    if file.stat().st_size == 0:
        return True
    try:
        return unpack_metadata(_read_text(file, form)) is not None
    except HotshotError:
        return False


def _read_text(file: Path, form: OutputForm) -> str:
    if form is OutputForm.MP4:
        return read_mp4_comment(file)
    if form is OutputForm.GIF:
        try:
            return parse_gif(read_bytes(file, MOST_FILE_BYTES)).comment.decode(
                "ascii", errors="replace"
            )
        except GifError as error:
            raise HotshotError(f"{file} {error}") from error
    with opened_image(file) as image:
        if form is OutputForm.WEBP:
            return str(image.getexif().get(ExifTags.Base.ImageDescription, ""))
        if form is OutputForm.JPEG:
            segments = [part for name, part in getattr(image, "applist", []) if name == "COM"]
            return b"".join(segments).decode("ascii", errors="replace")
        return str(image.info.get(METADATA_KEY, ""))
