"""Looking at what is at a path: the same place as another, or a folder that was made here.

Folders that this project wrote as a whole are told by a list of their files that it left there."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hotshot_jax.errors import UsageError
from hotshot_jax.files.parsed import parse_json
from hotshot_jax.files.plain_file import MOST_TEXT_BYTES, read_bytes
from hotshot_jax.version import __version__

AnyPath = str | os.PathLike[str]

_ADDRESS = re.compile("[A-Za-z][A-Za-z0-9+.-]*://")


def check_local(path: AnyPath, name: str) -> None:
    """Check that a path is none of another machine; Python would make a folder "gs:" of it.

    Raises:
        UsageError: it is an address, such as gs://bucket/folder.
    """
    if address := _ADDRESS.match(os.fspath(path)):
        raise UsageError(
            f"{name} {os.fspath(path)}: {address[0]} is neither read nor written here. Name a path "
            "on this machine; a bucket is one where it is mounted, as by gcsfuse or s3fs."
        )


def is_same_place(one: AnyPath, other: AnyPath) -> bool:
    """Whether two paths are one file or folder: through links, `..`, hard links, or other case."""
    try:
        return os.path.samefile(one, other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def is_inside(path: AnyPath, folder: AnyPath) -> bool:
    """Whether a path, which need not exist, is a folder or lies below it."""
    real = Path(os.path.realpath(path))
    return any(is_same_place(each, folder) for each in (real, *real.parents))


def check_not_read(target: AnyPath, sources: Mapping[str, AnyPath], name: str) -> None:
    """Check that replacing what is at a path changes nothing that is read.

    Args:
        target: what will be replaced; nothing is lost where there is nothing.
        sources: what is read, by the names that the person knows it by.
        name: that the person knows the target by.

    Raises:
        UsageError: a source is the target, lies in it, or holds it.
    """
    if not os.path.lexists(target):
        return
    for reader, source in sources.items():
        if is_inside(source, target) or is_inside(target, source):
            relation = "is" if is_same_place(source, target) else "holds, or is part of,"
            raise UsageError(
                f"{name} {os.fspath(target)} {relation} what {reader} reads, "
                f"{os.fspath(source)}. It would be replaced; name another."
            )


def check_no_dead_link(path: AnyPath) -> None:
    """Check that no part of a path is a symbolic link to something that is not there.

    Raises:
        UsageError: one is; writing through it would make a file in a place that nobody named.
    """
    absolute = Path(os.path.abspath(path))
    for each in (absolute, *absolute.parents):
        if os.path.islink(each) and not os.path.exists(each):
            raise UsageError(
                f"{each} is a symbolic link to {os.readlink(each)}, which is not there. "
                "Remove the link or name another path."
            )


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
        for name in [*names, *(name for name in folders if Path(parent, name).is_symlink())]:
            file = Path(parent, name)
            yield file.relative_to(folder).as_posix(), file
