"""What a file holds that is not what its name promises, and JSON files read with clear errors.

Checkpoints travel through Git, web servers and interrupted downloads. Each of these leaves its own
kind of rubbish under the right name, and each has its own remedy, so the first bytes are looked at
before anything is parsed.

A list of a folder's files with sizes and checksums, kept in the folder, tells what copying or a
disk has done to them: a file left out, cut short, or changed in one bit, which in weights is a
number like any other. Older lists have sizes alone.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_TEXT_BYTES, open_plain, read_bytes

PICKLES = (".ckpt", ".pt", ".pth", ".bin")
"""Endings of PyTorch's files."""

_PICKLE_ADVICE = (
    "which can run code when it is opened and is never read here; save it as .safetensors first "
    "(torch.load(FILE, weights_only=True), then safetensors.torch.save_file)"
)

# The first bytes of a file, and what they mean. Lower case, leading blanks removed.
_FOREIGN_STARTS: tuple[tuple[bytes, str], ...] = (
    (
        b"version https://git-lfs",
        "is a Git-LFS pointer, not the file itself; run 'git lfs pull' in its repository or "
        "download it again",
    ),
    (b"<!doctype", "is a web page, not the file itself; download it again"),
    (b"<html", "is a web page, not the file itself; download it again"),
    (b"<?xml", "is an XML answer of a web server, not the file itself; download it again"),
    (b"gguf", "is a GGUF file of quantised weights, which are not supported; use .safetensors"),
    (b"pk\x03\x04", f"is a PyTorch pickle archive, {_PICKLE_ADVICE}"),
    (b"\x80\x02", f"is a Python pickle, {_PICKLE_ADVICE}"),
    (b"\x80\x03", f"is a Python pickle, {_PICKLE_ADVICE}"),
    (b"\x80\x04", f"is a Python pickle, {_PICKLE_ADVICE}"),
    (b"\x80\x05", f"is a Python pickle, {_PICKLE_ADVICE}"),
)


def refuse_pickle(path: Path) -> None:
    """Refuse a file by its ending.

    Raises:
        HotshotError: it is that of a pickle.
    """
    if path.suffix in PICKLES:
        raise HotshotError(
            f"{path} is a pickle, which can run any code when it is read; use a .safetensors file."
        )


def describe_foreign(head: bytes) -> str | None:
    """Say what a file is whose first bytes are ``head``, when that is a known mix-up.

    Args:
        head: the first bytes of the file, 64 are enough.

    Returns:
        A clause that follows the file's name in a message ("is a web page, ..."), with what to
        do; None when nothing is recognised.
    """
    start = head.lstrip().lower()
    return next((meaning for prefix, meaning in _FOREIGN_STARTS if start.startswith(prefix)), None)


def describe_unreadable(path: Path, error: OSError) -> str:
    """Say in one line why ``path`` could not be opened, and what to do."""
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return (
                f"{path} is a link to a file that does not exist; "
                "the download was interrupted, download the model again"
            )
        return f"{path} does not exist; download the model again or correct the path"
    if isinstance(error, IsADirectoryError):
        return f"{path} is a folder where a file was expected"
    return f"{path} cannot be read: {error.strerror or error}"


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object at its top.

    Args:
        path: the file, for example a ``config.json``.

    Returns:
        The object. Keys named twice in one object are an error, not "the last one wins".

    Raises:
        HotshotError: the file is missing, empty, not UTF-8, a Git-LFS pointer or web page, not
            valid JSON, or JSON of another type.
    """
    try:
        content = read_bytes(path, MOST_TEXT_BYTES)
    except OSError as error:
        raise HotshotError(describe_unreadable(path, error)) from None
    if not content.strip():
        raise HotshotError(f"{path} is empty; download it again")
    foreign = describe_foreign(content[:64])
    if foreign is not None:
        raise HotshotError(f"{path} {foreign}")
    return parse_json_object(content, str(path))


def parse_json_object(content: bytes, what: str) -> dict[str, Any]:
    """Parse ``content`` as a JSON object; ``what`` is its name in the messages.

    Raises:
        HotshotError: not UTF-8, not valid JSON, a key named twice, beyond the limits of
            ``files.parsed``, or not an object.
    """
    try:
        value = parse_json(content)
    except ParseError as error:
        raise HotshotError(f"{what} {error}; download it again") from None
    if not isinstance(value, dict):
        raise HotshotError(f"{what} holds a JSON {type(value).__name__}; an object was expected")
    return value


FILE_LIST = "hotshot_files.json"

_BLOCK = 1 << 22
# Files up to this size are small beside weights, and what describes them.
_SMALL = 1 << 20
_THREADS = 4


def write_file_list(folder: Path, files: Iterable[Path] | None = None) -> None:
    """Writes the list.

    Args:
        folder: where it is written.
        files: below `folder`; None for all of them.
    """
    listed = sorted(path for path in files or folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor(_THREADS) as pool:
        checksums = pool.map(_checksum, listed)
        entries = {
            path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "crc32": checksum}
            for path, checksum in zip(listed, checksums, strict=True)
        }
    (folder / FILE_LIST).write_text(json.dumps(entries, indent=1), encoding="utf-8")


def check_file_list(folder: Path, *, whole: bool) -> None:
    """Checks a folder against its list, if it has one.

    Args:
        folder: the folder.
        whole: reads all files; else the small ones, and of the others only the size is looked at.

    Raises:
        HotshotError: names a file that is missing, of another size or changed, or the list itself.
    """
    if not (folder / FILE_LIST).exists():
        return
    checksums = {}
    for name, entry in read_json_object(folder / FILE_LIST).items():
        size, checksum = _entry(folder, entry)
        file = folder / name
        found = file.stat().st_size if file.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes instead of {size}"
            raise HotshotError(
                f"{file} {state}: the checkpoint was not copied or written completely; "
                "copy it or convert the model again"
            )
        if checksum is not None and (whole or size <= _SMALL):
            checksums[file] = checksum
    with ThreadPoolExecutor(_THREADS) as pool:
        for (file, expected), found_sum in zip(
            checksums.items(), pool.map(_checksum, checksums), strict=True
        ):
            if found_sum != expected:
                raise HotshotError(
                    f"{file} is damaged: its content is not what was written (checksum "
                    f"{found_sum} instead of {expected}); copy it or convert the model again"
                )


def _entry(folder: Path, entry: Any) -> tuple[int, str | None]:
    if isinstance(entry, int):
        return entry, None
    if isinstance(entry, Mapping) and set(entry) == {"bytes", "crc32"}:
        return entry["bytes"], entry["crc32"]
    raise HotshotError(
        f"{folder / FILE_LIST} is damaged: {entry!r} is no entry of it; "
        "copy it or convert the model again"
    )


def _checksum(file: Path) -> str:
    value = 0
    with open_plain(file) as opened:
        while block := opened.read(_BLOCK):
            value = zlib.crc32(block, value)
    return f"{value:08x}"
