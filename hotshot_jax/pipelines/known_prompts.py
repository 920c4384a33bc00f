"""What a model knows that was made for little, as its checkpoint says in `known_prompts.json`."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.convert.formats.small_files import KNOWN_PROMPTS
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_SETTINGS_BYTES, read_bytes


@dataclasses.dataclass(frozen=True)
class KnownPrompts:
    """What a model can be asked for.

    Attributes:
        forms: whole prompts, in which names in capitals stand for any of their words.
        words: by these names.
        sizes: width and height in pixels.
        frames: numbers of frames.
    """

    forms: tuple[str, ...]
    words: Mapping[str, tuple[str, ...]]
    sizes: tuple[tuple[int, int], ...]
    frames: tuple[int, ...]

    @classmethod
    def of(cls, folder: Path) -> KnownPrompts | None:
        """What a checkpoint says.

        Args:
            folder: of the checkpoint, in the diffusers layout or converted.

        Returns:
            None where there is no such file, or one of that name from another tool.
        """
        try:
            values = parse_json(read_bytes(folder / KNOWN_PROMPTS, MOST_SETTINGS_BYTES))
        except (OSError, ParseError):
            return None
        if not isinstance(values, dict) or set(values) != {f.name for f in dataclasses.fields(cls)}:
            return None
        words = values["words"]
        if not isinstance(words, dict) or not all(_is_list(each, str) for each in words.values()):
            return None
        sizes = values["sizes"]
        if not _is_list(values["forms"], str) or not _is_list(values["frames"], int):
            return None
        if not _is_list(sizes, list) or not all(_is_list(each, int, 2) for each in sizes):
            return None
        return cls(
            tuple(values["forms"]),
            {name: tuple(each) for name, each in words.items()},
            tuple((width, height) for width, height in sizes),
            tuple(values["frames"]),
        )

    def knows(self, text: str) -> bool:
        """Whether a prompt has one of the forms, whatever its capitals and spaces are."""
        pattern = "|".join(f"(?:{self._pattern(form)})" for form in self.forms)
        return re.fullmatch(pattern, " ".join(text.split()), re.IGNORECASE) is not None

    def _pattern(self, form: str) -> str:
        choices = {name: "|".join(map(re.escape, words)) for name, words in self.words.items()}
        return "".join(
            f"(?:{choices[part]})" if part in choices else re.escape(part)
            for part in re.split(r"(\w+)", form)
        )

    def describe(self) -> str:
        """The first form and its words, on one line."""
        words = "; ".join(f"{name} is {', '.join(each)}" for name, each in self.words.items())
        return f'"{self.forms[0]}", where {words}'


def _is_list(value: Any, kind: type, length: int | None = None) -> bool:
    return (
        isinstance(value, list)
        and len(value) > 0
        and length in (None, len(value))
        and all(isinstance(each, kind) and not isinstance(each, bool) for each in value)
    )
