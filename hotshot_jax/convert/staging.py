"""A folder that appears under its name only when it is complete."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

from hotshot_jax.errors import HotshotError, UsageError

# Room left beside what is asked for: a disk filled to the last byte breaks other programs.
_SPARE_BYTES = 64 * 2**20

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@contextlib.contextmanager
def staged_folder(
    dest: str | os.PathLike[str],
    *,
    source: str | os.PathLike[str] | None = None,
    required_bytes: int = 0,
) -> Iterator[Path]:
    """Give a new folder to write into, which becomes ``dest`` when the block succeeds.

    The folder lies beside ``dest``, so that the last step is one rename. When the block fails or
    is interrupted the folder is removed, the parents made for it too, and ``dest`` is as it was.
    A folder that a killed process left behind is removed by the next run for the same ``dest``: it
    is told from the folder of a process at work by a lock that ends with its process.

    Args:
        dest: the final folder; must not exist, or be empty. Missing parents are made.
        source: what is being converted; ``dest`` must not be the same place, links included.
        required_bytes: what the block will write, checked against the free space beforehand.

    Yields:
        The folder to write into.

    Raises:
        UsageError: ``dest`` is ``source``, is a file, or holds something.
        HotshotError: ``dest`` cannot be written, the disk has too little room or fills up in the
            block, or another process is writing ``dest``.
    """
    # Through links, so that the staging folder is on the disk that the result will be on.
    dest = Path(os.path.realpath(dest))
    check_destination(dest, source=source)
    prefix = f".{dest.name}.incomplete-"
    made = [folder for folder in dest.parents if not folder.exists()]
    try:
        dest.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(dest, prefix)
        check_disk_space(dest, required_bytes)
        staging = dest.with_name(prefix + secrets.token_hex(4))
        staging.mkdir()
        lock = _lock(staging)
    except BaseException as error:
        _remove_empty(made)
        if isinstance(error, OSError):
            raise _unwritable(dest, error) from None
        raise
    try:
        yield staging
        _rename(staging, dest)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise HotshotError(
                f"the disk is full: {dest} was not written; free some space and run again"
            ) from error
        raise
    finally:
        # After the rename nothing is there under this name, and nothing is removed.
        shutil.rmtree(staging, ignore_errors=True)
        _remove_empty(made)
        if lock is not None:
            os.close(lock)


def check_destination(
    dest: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None
) -> None:
    """Check that a result may be written to ``dest``; changes nothing.

    Args:
        dest: the folder to be made.
        source: what it is made from.

    Raises:
        UsageError: ``dest`` is ``source`` (also through a link), is a file, or is not empty.
    """
    dest = Path(dest)
    if source is not None and dest.resolve() == Path(source).resolve():
        raise UsageError(f"source and destination are the same folder, {dest}; name another one")
    if dest.is_dir():
        try:
            occupied = any(dest.iterdir())
        except OSError as error:
            raise _unwritable(dest, error) from None
        if occupied:
            raise UsageError(f"the destination {dest} is not empty; name a new folder or remove it")
    elif dest.exists():
        raise UsageError(f"the destination {dest} exists and is not a folder; name a new folder")


def check_disk_space(dest: str | os.PathLike[str], required_bytes: int) -> None:
    """Check that the disk on which ``dest`` lies or will lie has room.

    Args:
        dest: the file or folder to be written; need not exist.
        required_bytes: its size.

    Raises:
        HotshotError: there is too little room; the message gives both numbers.
    """
    folder = Path(os.path.realpath(dest))
    while not folder.is_dir():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if required_bytes > 0 and required_bytes + _SPARE_BYTES > free:
        raise HotshotError(
            f"not enough space for {dest}: {required_bytes / 1e9:.2f} GB are needed, "
            f"{free / 1e9:.2f} GB are free on its disk; free some space or choose another disk"
        )


def _rename(staging: Path, dest: Path) -> None:
    try:
        staging.rename(dest)
    except OSError as error:
        raise _unwritable(dest, error) from None


def _remove_empty(folders: Iterable[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _remove_leftovers(dest: Path, prefix: str) -> None:
    for leftover in dest.parent.iterdir():
        if not leftover.name.startswith(prefix) or not leftover.is_dir():
            continue
        try:
            lock = _lock(leftover)
        except BlockingIOError:
            raise HotshotError(
                f"another process is writing {dest} (in {leftover.name}); "
                "wait for it or name another destination"
            ) from None
        if lock is not None:
            shutil.rmtree(leftover)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives.

    Returns:
        The descriptor that holds the lock; None on disks that cannot lock folders (some network
        disks), where a folder at work cannot be told from a leftover and both are left alone.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _unwritable(dest: Path, error: OSError) -> HotshotError:
    if error.errno in _DISK_FULL:
        return HotshotError(f"the disk is full: {dest} cannot be written; free some space")
    return HotshotError(
        f"the destination {dest} cannot be written: {error.strerror or error}; "
        "check its permissions or name another folder"
    )
