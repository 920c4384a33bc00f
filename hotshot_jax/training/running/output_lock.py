"""One training at a time in an output folder.

The lock is the operating system's (`flock`), so that it is gone when its process is, however that
ended. Network file systems pass it on to other hosts where they can (NFS, Lustre mounted with
`flock`).
"""

import contextlib
import errno
import fcntl
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from hotshot_jax.errors import HotshotError, UsageError

logger = logging.getLogger(__name__)

_NAME = ".lock"
_HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextlib.contextmanager
def only_training_in(folder: Path) -> Iterator[None]:
    """Keeps other trainings out of a folder; to be held by one process of a run.

    Args:
        folder: made if missing. Where its file system has no locks, that is told, and training
            goes on without.

    Raises:
        UsageError: another training holds it.
        HotshotError: it cannot be written.
    """
    path = folder / _NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(path)
    except OSError as error:
        raise HotshotError(
            f"{folder}: checkpoints cannot be written ({error.strerror or error}). Give another "
            "`output_dir`."
        ) from error
    try:
        yield
    finally:
        if file is not None:
            path.unlink(missing_ok=True)
            os.close(file)


def _locked(path: Path) -> int | None:
    """The open file that carries the lock; None where there are no locks."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between opening and locking, the one before may have removed the file.
            if _is(file, path):
                os.ftruncate(file, 0)
                os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
                return file
            os.close(file)
        except OSError as error:
            if error.errno in _HELD:
                holder = os.pread(file, 200, 0).decode(errors="replace")
                os.close(file)
                raise UsageError(
                    f"`output_dir` {path.parent}: another training is writing there"
                    f"{f' ({holder})' if holder.isprintable() and holder else ''}. Wait for its "
                    "end or stop it, or name another `output_dir`."
                ) from error
            os.close(file)
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            logger.warning(
                "%s cannot be locked (%s): take care that no other training writes there.",
                path.parent,
                error.strerror,
            )
            return None


def _is(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False
