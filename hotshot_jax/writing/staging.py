"""Writing beside a path and renaming into place.

What is written lies in a hidden folder beside its path, `.hotshot-jax-TOKEN.tmp`, until it is
complete. A run that fails, for want of disk space or by Ctrl-C, leaves what was there before as it
was. What a killed run left is removed by the next one that writes into the same folder; it is told
from the work of a living process by a lock that ends with its process.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing.places import check_no_dead_link, is_same_place

MayReplace = Callable[[Path], None]
"""Raises `UsageError` if what is at a path is not to be replaced."""

# Room left beside what is asked for: a disk filled to the last byte breaks other programs.
_SPARE_BYTES = 64 * 2**20
_PREFIX, _SUFFIX = ".hotshot-jax-", ".tmp"
_NEW, _OLD = "new", "old"


def replace_anything(path: Path) -> None:
    """Lets everything be replaced, where names are given by this project alone."""


@contextlib.contextmanager
def staged_file(
    path: str | os.PathLike[str], *, may_replace: MayReplace | None = None
) -> Iterator[Path]:
    """Give a path to write a file under; it is renamed to `path` at the end.

    Missing parent folders are made, and removed again if the body raises. Symbolic links are
    followed. A file that is replaced hands on its permissions.

    Args:
        path: of the file.
        may_replace: says whether what is there may be replaced; None if nothing may.

    Raises:
        UsageError: something is there that must not be replaced.
        HotshotError: the operating system refuses; the message names `path` and the reason.
    """
    path = _real(path)
    _check_replaced(path, may_replace)
    with _workspace(path) as work:
        staged = work / _NEW / path.name
        yield staged
        _check_replaced(path, may_replace)
        if os.path.lexists(path):
            _hand_on_permissions(path, staged)
        os.replace(staged, path)


@contextlib.contextmanager
def staged_folder(
    path: str | os.PathLike[str],
    *,
    required_bytes: int = 0,
    may_replace: MayReplace | None = None,
) -> Iterator[Path]:
    """Give an empty folder to fill; it is renamed to `path` at the end.

    Parents, links and permissions are as in `staged_file`. An empty folder may always be replaced.

    Args:
        path: of the folder.
        required_bytes: what the body will write, checked against the free space beforehand.
        may_replace: as in `staged_file`; a folder is replaced as a whole.

    Raises:
        UsageError: something is there that must not be replaced.
        HotshotError: the operating system refuses, the disk has too little room, or another process
            is writing `path`.
    """
    path = _real(path)
    _check_replaced(path, may_replace)
    with _workspace(path, required_bytes, alone=True) as work:
        staged = work / _NEW / path.name
        staged.mkdir()
        yield staged
        _check_replaced(path, may_replace)
        _rename_folder(staged, path, work / _OLD / path.name)


def replace_file(path: Path, content: bytes) -> None:
    """Write a small file, of which many are written, whole or not at all.

    It takes no lock: what a killed run leaves stays.

    Args:
        path: missing parents are made; what is there is replaced.
        content: of the file.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = _free_name(path.parent)
    try:
        staged.write_bytes(content)
        os.replace(staged, path)
    finally:
        staged.unlink(missing_ok=True)


def check_destination(
    dest: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None
) -> None:
    """Check that a new folder may be written to `dest`; changes nothing.

    Args:
        dest: the folder to be made.
        source: what it is made from.

    Raises:
        UsageError: `dest` is `source` (also through a link), is a file, or is not empty.
    """
    if source is not None and is_same_place(dest, source):
        raise UsageError(f"source and destination are the same folder, {dest}; name another one")
    real = _real(dest)
    if real.exists() and not real.is_dir():
        raise UsageError(f"the destination {dest} exists and is not a folder; name a new folder")
    _check_replaced(real, None)


def check_disk_space(dest: str | os.PathLike[str], required_bytes: int) -> None:
    """Check that the disk on which `dest` lies or will lie has room.

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


def probe_writable(folder: Path) -> None:
    """Make a file in a folder and remove it; a permission bit says little on network drives.

    Raises:
        OSError: the folder cannot be written to.
    """
    probe = _free_name(folder)
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def probe_renaming(folder: Path) -> None:
    """Rename a folder with a file in it, as what is complete is; some network drives refuse.

    Raises:
        OSError: it cannot be renamed, or the folder cannot be written to.
    """
    probe, renamed = _free_name(folder), _free_name(folder)
    try:
        probe.mkdir()
        (probe / _NEW).touch()
        os.rename(probe, renamed)
    finally:
        for path in (probe, renamed):
            shutil.rmtree(path, ignore_errors=True)


def _real(path: str | os.PathLike[str]) -> Path:
    check_no_dead_link(path)
    # Through links, so that the work lies on the disk that the result will be on.
    return Path(os.path.realpath(path))


def _check_replaced(path: Path, may_replace: MayReplace | None) -> None:
    if not os.path.lexists(path):
        return
    if path.is_dir():
        try:
            occupied = any(path.iterdir())
        except OSError as error:
            raise _unwritable(path, error) from error
        if not occupied:
            return
    if may_replace is not None:
        may_replace(path)
    elif path.is_dir():
        raise UsageError(f"the destination {path} is not empty; name a new folder or remove it")
    else:
        raise UsageError(f"the destination {path} exists already; name a new one")


@contextlib.contextmanager
def _workspace(path: Path, required_bytes: int = 0, alone: bool = False) -> Iterator[Path]:
    """A locked folder beside `path`, with a folder for what is new and one for what was there."""
    made = [folder for folder in path.parents if not os.path.lexists(folder)]
    work: Path | None = None
    lock: int | None = None
    begun = False
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path, alone)
        check_disk_space(path, required_bytes)
        work, lock = _locked_folder(path.parent)
        (work / _NEW).mkdir()
        (work / _OLD).mkdir()
        begun = True
        yield work
    except BaseException as error:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for folder in made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError) and not begun:
            raise _unwritable(path, error) from error
        if isinstance(error, OSError) and _is_of_writing(error, path.parent):
            raise HotshotError(
                f"{path} could not be written: {error.strerror or error}. "
                "What was there before is unchanged."
            ) from error
        raise
    else:
        shutil.rmtree(work, ignore_errors=True)
    finally:
        if lock is not None:
            os.close(lock)


def _is_of_writing(error: OSError, folder: Path) -> bool:
    """Whether an error comes from writing, and not from what is read or fetched meanwhile."""
    if isinstance(error, ConnectionError | TimeoutError):
        return False
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or error.filename is None:
        return True
    return os.fsdecode(error.filename).startswith(os.fspath(folder))


def _rename_folder(staged: Path, path: Path, old: Path) -> None:
    if not path.exists():
        os.rename(staged, path)
        return
    _hand_on_permissions(path, staged)
    try:
        os.rename(path, old)
        os.rename(staged, path)
    except BaseException:
        _put_back(old, path)
        raise


def _put_back(old: Path, path: Path) -> None:
    if os.path.lexists(old) and not os.path.lexists(path):
        os.rename(old, path)


def _hand_on_permissions(old: Path, new: Path) -> None:
    before = old.stat()
    with contextlib.suppress(OSError):
        os.chown(new, before.st_uid, before.st_gid)
    # After the owner: a change of owner takes bits away.
    with contextlib.suppress(OSError):
        os.chmod(new, stat.S_IMODE(before.st_mode))


def _locked_folder(parent: Path) -> tuple[Path, int | None]:
    while True:
        folder = _free_name(parent)
        folder.mkdir()
        # Before it is locked, another process may take it for a leftover.
        with contextlib.suppress(BlockingIOError, FileNotFoundError):
            lock = _lock(folder)
            if folder.exists():
                return folder, lock
            if lock is not None:
                os.close(lock)


def _free_name(folder: Path) -> Path:
    return folder / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def _remove_leftovers(path: Path, alone: bool) -> None:
    for leftover in _workspaces(path.parent):
        try:
            lock = _lock(leftover)
        except BlockingIOError:
            if alone and (leftover / _NEW / path.name).exists():
                raise HotshotError(
                    f"another process is writing {path} (in {leftover.name}); "
                    "wait for it or name another destination"
                ) from None
            continue
        except OSError:
            continue
        if lock is None:
            continue
        # It may have been killed between two renames.
        with contextlib.suppress(OSError):
            # Or before it had made that folder.
            if (leftover / _OLD).is_dir():
                for old in (leftover / _OLD).iterdir():
                    _put_back(old, path.parent / old.name)
            shutil.rmtree(leftover, ignore_errors=True)
        os.close(lock)


def _workspaces(folder: Path) -> Iterable[Path]:
    with os.scandir(folder) as entries:
        return [
            Path(entry.path)
            for entry in entries
            if entry.name.startswith(_PREFIX)
            and entry.name.endswith(_SUFFIX)
            and entry.is_dir(follow_symlinks=False)
        ]


def _lock(folder: Path) -> int | None:
    """Lock a folder for as long as this process lives.

    Returns:
        The descriptor that holds the lock; None on disks that cannot lock folders (some network
        disks), where a folder at work cannot be told from a leftover and both are left alone.

    Raises:
        OSError: another process has locked it (`BlockingIOError`), or it is gone.
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


def _unwritable(path: Path, error: OSError) -> HotshotError:
    return HotshotError(
        f"{path} cannot be written: {error.strerror or error}; check permissions or name another"
    )
