"""Captions as people keep them: a file beside each clip, or tables that name the clips.

Beside a clip lies a file of its name that ends in .txt, .caption or .json, in any case. A table is
`metadata.jsonl`, `metadata.csv` or `metadata.json`, as the imagefolder of Hugging Face has it (each
row names a file, relative to the table's folder, and its caption), or as kohya's scripts write it
(an object of captions and tags by file). Other .jsonl, .csv and .json files count as tables if they
have the same form and name a clip.
"""

import csv
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hotshot_jax.data.clip_source import picture_bytes
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json

TEXT_ENDINGS: Final = (".txt", ".caption")
SIDECAR_ENDINGS: Final = (*TEXT_ENDINGS, ".json")
"""Of a file that holds the caption of one clip."""

TABLE_ENDINGS: Final = (".jsonl", ".csv", ".json")
"""Of a file that holds the captions of many."""

METADATA: Final = "metadata"

_CAPTION_KEYS: Final = ("prompt", "text", "caption")
_TAG_KEYS: Final = ("tags",)
_FILE_KEYS: Final = (
    "file_name", "filename", "file", "file_path", "path", "video", "video_path",
    "image", "image_path",
)  # fmt: skip
_EXPECTED: Final = 'expected {"file_name": "clip.mp4", "prompt": "..."}'


@dataclass(frozen=True)
class Row:
    """A caption that a table has for a file.

    Attributes:
        name: the file as the table names it.
        caption: the text, not yet checked.
        label: the table and the line or entry, for messages.
    """

    name: str
    caption: str
    label: str


def is_table(name: str) -> bool:
    """Whether a file is by its name a table of captions, which must be one."""
    stem, ending = os.path.splitext(os.path.basename(name))
    return stem.lower() == METADATA and ending.lower() in TABLE_ENDINGS


def decode_prompt(text: bytes, label: str) -> str:
    """Decode the bytes of a prompt.

    Raises:
        HotshotError: it is empty or not UTF-8; the message begins with the label.
    """
    try:
        return _checked(text.decode("utf-8-sig"), label)
    except UnicodeDecodeError as error:
        raise HotshotError(
            f"{label}: is not UTF-8 text (byte {error.start} is 0x{text[error.start]:02x})"
        ) from error


def decode_sidecar(content: bytes, label: str) -> str:
    """The caption in a file beside a clip.

    Args:
        content: of the file.
        label: its name, whose ending tells what it is; messages begin with it.

    Raises:
        HotshotError: it holds no caption.
    """
    if not label.lower().endswith(".json"):
        return decode_prompt(content, label)
    try:
        value = parse_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ParseError as error:
        raise HotshotError(f"{label}: {error}") from error
    caption = value if isinstance(value, str) else _caption(value)
    if caption is None:
        raise HotshotError(f'{label}: expected {{"caption": "..."}}')
    return _checked(caption, label)


def read_table(path: Path, label: str) -> Sequence[Row]:
    """The rows of a table, in their order.

    Args:
        path: of the table.
        label: what messages call it.

    Raises:
        HotshotError: it cannot be read, or a row names no file or no caption; it says which.
    """
    content = picture_bytes(path, label)
    ending = path.suffix.lower()
    read = {".jsonl": _json_lines, ".csv": _csv_rows, ".json": _json_rows}[ending]
    return list(read(content, label))


def check_caption(row: Row) -> str:
    """The caption of a row.

    Raises:
        HotshotError: it is empty.
    """
    return _checked(row.caption, row.label)


def matched_rows(
    rows: Sequence[Row], folder: str, root: Path, clips: Collection[str], stems: Mapping[str, str]
) -> tuple[dict[str, list[Row]], list[Row]]:
    """Which clip each row of a table is about.

    Args:
        rows: of the table.
        folder: that the table lies in, relative to the root.
        root: the data folder.
        clips: names of all clips, relative to the root.
        stems: the clip of each name without ending, where there is one alone; kohya's tables
            leave endings out.

    Returns:
        The rows of each clip, and those whose clip is not there.
    """
    found: dict[str, list[Row]] = {}
    unused = []
    for row in rows:
        places = [os.path.join(folder, row.name), row.name]
        if os.path.isabs(row.name):
            places = [os.path.relpath(os.path.realpath(row.name), os.path.realpath(root))]
        names = [os.path.normpath(place) for place in places]
        clip = next((name for name in names if name in clips), None)
        clip = clip or next((stems[name] for name in names if name in stems), None)
        if clip is None:
            unused.append(row)
        else:
            found.setdefault(clip, []).append(row)
    return found, unused


def one_caption(clip: str, labels: Sequence[str]) -> None:
    """Check that a clip has no second caption.

    Args:
        clip: its name.
        labels: where captions for it are.

    Raises:
        HotshotError: there are several; it names the first two.
    """
    if len(labels) > 1:
        raise HotshotError(
            f"{clip}: has {len(labels)} captions, in {labels[0]} and in {labels[1]}; keep one"
        )


def _json_lines(content: bytes, label: str) -> Iterator[Row]:
    for number, line in enumerate(content.split(b"\n"), 1):
        if line.strip():
            where = f"{label} line {number}"
            try:
                value = parse_json(line.decode("utf-8-sig"))
            except ValueError as error:
                raise HotshotError(f"{where}: {_EXPECTED}") from error
            yield _row(value, where)


def _csv_rows(content: bytes, label: str) -> Iterator[Row]:
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        for row in reader:
            lowered = {str(key or "").strip().lower(): value for key, value in row.items()}
            where = f"{label} line {reader.line_num}"
            if not {*_FILE_KEYS} & lowered.keys():
                raise HotshotError(f"{label} line 1: expected columns file_name and text")
            yield _row(lowered, where)
    except (csv.Error, UnicodeDecodeError) as error:
        raise HotshotError(f"{label}: is not CSV in UTF-8 ({error})") from error


def _json_rows(content: bytes, label: str) -> Iterator[Row]:
    try:
        value = parse_json(content.removeprefix(b"\xef\xbb\xbf"))
    except ParseError as error:
        raise HotshotError(f"{label}: {error}") from error
    if isinstance(value, Mapping):
        for name, entry in value.items():
            where = f"{label}, {name}"
            caption = entry if isinstance(entry, str) else _caption(entry)
            if caption is None:
                raise HotshotError(f'{where}: expected {{"caption": "..."}}')
            yield Row(name, caption, where)
    elif isinstance(value, list):
        for number, entry in enumerate(value, 1):
            yield _row(entry, f"{label} entry {number}")
    else:
        raise HotshotError(f"{label}: expected a list of objects with file_name and caption")


def _row(value: Any, where: str) -> Row:
    caption = _caption(value)
    names = [value.get(key) for key in _FILE_KEYS] if isinstance(value, Mapping) else []
    name = next((each for each in names if isinstance(each, str) and each.strip()), None)
    if caption is None or name is None:
        raise HotshotError(f"{where}: {_EXPECTED}")
    return Row(name.strip(), caption, where)


def _caption(value: Any) -> str | None:
    """The caption that an object holds, with kohya's tags behind it; None if there is none."""
    if not isinstance(value, Mapping):
        return None
    parts = [
        next((value[key] for key in keys if isinstance(value.get(key), str)), None)
        for keys in (_CAPTION_KEYS, _TAG_KEYS)
    ]
    given = [part for part in parts if part]
    return ", ".join(given) if given else next((p for p in parts if p is not None), None)


def _checked(text: str, label: str) -> str:
    prompt = text.strip()
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise HotshotError(f"{label}: is not text ({error.reason})") from error
    if not prompt or "\0" in prompt:
        raise HotshotError(f"{label}: {'holds a zero byte' if prompt else 'is empty'}")
    return prompt
