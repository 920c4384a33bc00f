"""Opening files: plain ones only, and no more of them than is asked for.

How much of a file is taken before it is refused is far above what is in use, far below harm.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

MOST_TEXT_BYTES: Final = 64_000_000
"""Of JSON and other text that programs write; the largest in use, a tokenizer's, has 20 MB."""

MOST_SETTINGS_BYTES: Final = 100_000
"""Of settings, which PyYAML takes up to 3 seconds to read."""

MOST_HEADER_BYTES: Final = 100_000_000
"""Of the header of a .safetensors file; the limit of the safetensors library."""

MOST_TENSORS: Final = 100_000
"""In one .safetensors file; SDXL in one file has 2,515."""

MOST_NAME_CHARACTERS: Final = 1000
"""Of a tensor's name; those in use have under 200."""

MOST_DIMENSIONS: Final = 64
"""Of an array; the limit of NumPy 2."""

MOST_VALUES: Final = 4_000_000
"""In one JSON or YAML text, keys left out: some 400 MB of Python objects."""

MOST_DEPTH: Final = 64
"""Of objects and lists inside each other. Python gives up at some hundreds."""

MOST_DIGITS: Final = 64
"""Of a number. Enough for 2**64 and the "very large integer" of tokenizers (10**30), and any float
can hold it. Python itself refuses more than 4300."""

MOST_FILE_BYTES: Final = 4_000_000_000
"""Of a clip, or of a file of our own, that is read whole."""

MOST_PIXELS_A_SIDE: Final = 8192
"""Of a frame."""

MOST_PICTURE_PIXELS: Final = MOST_PIXELS_A_SIDE**2
"""Of one picture or frame."""

MOST_DECODED_PIXELS: Final = 1_000_000_000
"""Of all frames of an animation, since all have to be decoded to reach the last: 15 seconds."""

MOST_VIDEO_PIXELS: Final = 4_000_000_000
"""Of all frames of a video, which is decoded several times as fast."""

MOST_READING_SECONDS: Final = 60.0
"""Of ffmpeg for one file."""

MOST_KEPT_PIXELS: Final = 200_000_000
"""Of the frames that are kept: 600 MB, 24 frames of 4K."""

MOST_PROMPT_BYTES: Final = 1 << 16
"""Of a prompt, in UTF-8; text encoders read 77 tokens at a time."""


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
