"""Folders that this project wrote as a whole, told by a list of their files that it left there."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

from hotshot_jax.errors import UsageError
from hotshot_jax.files.limits import MOST_TEXT_BYTES
from hotshot_jax.files.parsed import parse_json
from hotshot_jax.files.plain_file import read_bytes
from hotshot_jax.version import __version__

LIST = ".hotshot-jax.json"
"""Name of the list in a folder."""


def list_files(folder: Path) -> None:
    """Write the list of all files in a folder, with their sizes in bytes."""
    sizes = {name: file.stat().st_size for name, file in _files(folder)}
    content = {"made_by": f"hotshot-jax {__version__}", "files": sizes}
    (folder / LIST).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_made_here(folder: Path) -> None:
    """Check that a folder holds what this project wrote, unchanged, and nothing else.

    Raises:
        UsageError: names what else is there.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file; name a folder.")
    listed = _listed(folder)
    if listed is None:
        raise UsageError(
            f"{folder} was not made by hotshot-jax ({LIST} is missing or damaged), so that it is "
            "not replaced. Name another folder, or remove it yourself."
        )
    for name, file in _files(folder):
        if name == LIST:
            continue
        if file.is_symlink() or not file.is_file() or listed.get(name) != file.stat().st_size:
            what = "has changed" if name in listed else "was not written by hotshot-jax"
            raise UsageError(
                f"{folder} is not replaced: {name} {what}. Name another folder, or move it away."
            )


def _listed(folder: Path) -> dict[str, int] | None:
    try:
        content = parse_json(read_bytes(folder / LIST, MOST_TEXT_BYTES))
    except (OSError, ValueError):
        return None
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else None


def _files(folder: Path) -> Iterator[tuple[str, Path]]:
    for parent, folders, names in os.walk(folder):
        links = [name for name in folders if Path(parent, name).is_symlink()]
        for name in [*names, *links]:
            file = Path(parent, name)
            yield file.relative_to(folder).as_posix(), file
