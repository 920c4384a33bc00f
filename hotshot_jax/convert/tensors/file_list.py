"""A list of a folder's files with sizes and checksums, kept in the folder.

It tells what copying or a disk has done to them: a file left out, cut short, or changed in one bit,
which in weights is a number like any other. Older lists have sizes alone.
"""

import json
import zlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import open_plain

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
