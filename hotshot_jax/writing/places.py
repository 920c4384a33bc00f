"""Whether two paths lead to the same place, whatever they are spelled like."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hotshot_jax.errors import UsageError

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
    for each in _parts(Path(os.path.abspath(path))):
        if os.path.islink(each) and not os.path.exists(each):
            raise UsageError(
                f"{each} is a symbolic link to {os.readlink(each)}, which is not there. "
                "Remove the link or name another path."
            )


def _parts(path: Path) -> Iterator[Path]:
    yield path
    yield from path.parents
