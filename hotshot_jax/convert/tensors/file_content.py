"""What a file holds that is not what its name promises, and JSON files read with clear errors.

Checkpoints travel through Git, web servers and interrupted downloads. Each of these leaves its own
kind of rubbish under the right name, and each has its own remedy, so the first bytes are looked at
before anything is parsed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.limits import MOST_TEXT_BYTES
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import read_bytes

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


def describe_foreign(head: bytes) -> str | None:
    """Say what a file is whose first bytes are ``head``, when that is a known mix-up.

    Args:
        head: the first bytes of the file, 64 are enough.

    Returns:
        A clause that follows the file's name in a message ("is a web page, ..."), with what to
        do; None when nothing is recognised.
    """
    start = head.lstrip().lower()
    for prefix, meaning in _FOREIGN_STARTS:
        if start.startswith(prefix):
            return meaning
    return None


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
