"""The prompt of a sample that is a folder of frames: a file in it, or a row of a table."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from hotshot_jax.data.captions import (
    SIDECAR_ENDINGS,
    Row,
    check_caption,
    decode_sidecar,
    one_caption,
)
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import MOST_PROMPT_BYTES, open_plain

PROMPT_FILE: Final = "prompt.txt"
_PROMPT_FILES: Final = frozenset(f"prompt{ending}" for ending in SIDECAR_ENDINGS)


def prompt_files(names: Iterable[str]) -> list[str]:
    """Those of the files in a sample's folder that hold its prompt, in order of their names."""
    return sorted(name for name in names if name.lower() in _PROMPT_FILES)


def read_prompt(folder: Path, name: str, rows: Sequence[Row] = ()) -> str:
    """The prompt of a sample, without white space around it.

    Args:
        folder: of the sample.
        name: what messages call it.
        rows: that tables have for it.

    Raises:
        HotshotError: it is missing, there are several, or it cannot be read, is empty, too long, or
            not UTF-8.
    """
    try:
        labels = [join(name, file) for file in prompt_files(os.listdir(folder))]
    except OSError as error:
        raise HotshotError(f"{name}: cannot be read: {error.strerror or error}") from error
    one_caption(name, [*labels, *(row.label for row in rows)])
    for row in rows:
        return check_caption(row)
    label = labels[0] if labels else join(name, PROMPT_FILE)
    try:
        with open_plain(folder / Path(label).name) as file:
            text = file.read(MOST_PROMPT_BYTES + 1)
    except FileNotFoundError:
        raise HotshotError(f"{label}: is missing") from None
    except OSError as error:
        raise HotshotError(f"{label}: cannot be read: {error.strerror or error}") from error
    if len(text) > MOST_PROMPT_BYTES:
        raise HotshotError(f"{label}: is longer than {MOST_PROMPT_BYTES} bytes")
    return decode_sidecar(text, label)


def join(name: str, file: str) -> str:
    """A file in a sample's folder, relative to the data folder."""
    return file if name == "." else f"{name}/{file}"
