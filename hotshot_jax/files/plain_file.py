"""Opening files: plain ones only, and no more of them than is asked for."""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

AnyPath = str | os.PathLike[str]

_KINDS: Final = (
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def open_plain(path: AnyPath) -> BinaryIO:
    """Open a file for reading in binary form.

    A named pipe would keep its reader waiting for ever, and a device may never end.

    Raises:
        OSError: it cannot be opened, is a folder, or no plain file; `strerror` says so in words.
    """
    # Without O_NONBLOCK, opening a named pipe waits until somebody writes to it.
    try:
        descriptor = os.open(
            path,
            os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0),
        )
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), os.fspath(path)) from error
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
        if not stat.S_ISREG(mode):
            kind = next((name for is_kind, name in _KINDS if is_kind(mode)), "something else")
            raise OSError(errno.EINVAL, f"it is {kind}, not a plain file", os.fspath(path))
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def check_plain(path: AnyPath) -> None:
    """Check that a library which opens a file by its path will find a plain one.

    Raises:
        OSError: as `open_plain`.
    """
    open_plain(path).close()


def check_plain_folder(folder: Path, most_bytes: int | None = None) -> None:
    """Check that a library which reads a folder, at any depth, will find plain files.

    Args:
        folder: the folder.
        most_bytes: the most that one of the files may have; None for any size.

    Raises:
        OSError: one of them is no plain file or too large.
    """
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            status = os.stat(path)
            if not stat.S_ISREG(status.st_mode):
                check_plain(path)
            if most_bytes is not None and status.st_size > most_bytes:
                raise _too_large(path, most_bytes)


def read_bytes(path: AnyPath, most_bytes: int) -> bytes:
    """Read a whole file.

    Args:
        path: the file.
        most_bytes: the most that it may have.

    Raises:
        OSError: as `open_plain`, or it has more.
    """
    with open_plain(path) as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise _too_large(path, most_bytes)
    return content


def read_text(path: AnyPath, most_bytes: int) -> str:
    """Read a whole text in UTF-8; a byte order mark is left out, line ends become "\\n".

    Args:
        path: the file.
        most_bytes: the most that it may have.

    Raises:
        OSError: as `read_bytes`.
        UnicodeDecodeError: it is not UTF-8.
    """
    text = read_bytes(path, most_bytes).decode("utf-8-sig")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _too_large(path: AnyPath, most_bytes: int) -> OSError:
    most = f"{most_bytes // 1_000_000} MB" if most_bytes >= 1_000_000 else f"{most_bytes} bytes"
    return OSError(errno.EFBIG, f"it has more than {most}", os.fspath(path))
