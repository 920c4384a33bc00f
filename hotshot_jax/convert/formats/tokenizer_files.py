"""Checking a CLIP tokenizer's files, so that damage is named before a tokenizer is built."""

from __future__ import annotations

from pathlib import Path

from hotshot_jax.convert.tensors.file_content import (
    describe_foreign,
    describe_unreadable,
    read_json_object,
)
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import MOST_TEXT_BYTES, check_plain_folder, read_bytes


def check_tokenizer_folder(path: Path) -> None:
    """Check that a CLIP tokenizer's files are there and whole.

    Args:
        path: folder with ``vocab.json`` and ``merges.txt``, or with ``tokenizer.json``.

    Raises:
        HotshotError: a file is missing, empty or damaged.
    """
    if (path / "tokenizer.json").exists() and not (path / "vocab.json").exists():
        read_json_object(path / "tokenizer.json")
        return
    missing = [name for name in ("vocab.json", "merges.txt") if not (path / name).exists()]
    if missing:
        raise HotshotError(
            f"{path} lacks {' and '.join(missing)}; expected a CLIP tokenizer, "
            "download the tokenizer again"
        )
    if not read_json_object(path / "vocab.json"):
        raise HotshotError(f"{path / 'vocab.json'} is empty; download the tokenizer again")
    merges = path / "merges.txt"
    try:
        check_plain_folder(path, MOST_TEXT_BYTES)
        content = read_bytes(merges, MOST_TEXT_BYTES)
        text = content.decode("utf-8")
    except OSError as error:
        raise HotshotError(describe_unreadable(merges, error)) from None
    except UnicodeDecodeError:
        raise HotshotError(f"{merges} is not UTF-8 text; download the tokenizer again") from None
    foreign = describe_foreign(content[:64])
    if foreign is not None:
        raise HotshotError(f"{merges} {foreign}")
    lines = (line for line in text.splitlines() if not line.startswith("#version"))
    if not any(len(line.split()) == 2 for line in lines):
        raise HotshotError(f"{merges} holds no merges; download the tokenizer again")
