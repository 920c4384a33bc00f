"""PEFT's patterns: which value of a table in `adapter_config.json` belongs to a module."""

from __future__ import annotations

import functools
import re
import reprlib
from collections.abc import Mapping
from typing import Any

_PLAIN = re.compile(r"[\w.]+")
# A regular expression from a file can take for ever. What can only match a number is harmless.
_NUMBERS = re.compile(r"(\\d|\[0-9\])[+*]")
_MOST_OF_EACH = 3


def find_by_pattern(table: Any, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's path.

    Args:
        table: values by regular expression; None for none.
        name: the module's path.
        default: what is given where no pattern matches.

    Raises:
        ValueError: it is no table, or a pattern is no regular expression or too involved; the
            message is a clause that goes on from the table's name.
    """
    if table is None:
        return default
    if not isinstance(table, Mapping):
        raise ValueError(f"is {reprlib.repr(table)}, not a table")
    return next((value for pattern, value in table.items() if _matches(pattern, name)), default)


def _matches(pattern: str, name: str) -> bool:
    if _PLAIN.fullmatch(pattern) is None:
        return _compiled(pattern).match(name) is not None
    # Files name a thousand modules so, more than `re` keeps compiled.
    start = len(name) - len(pattern)
    fits = start == 0 or (start > 0 and name[start - 1] == ".")
    return fits and all(
        each in (".", found) for each, found in zip(pattern, name[start:], strict=True)
    )


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    involved = _NUMBERS.sub("", pattern)
    if (
        sum(map(involved.count, "*+?{")) > _MOST_OF_EACH
        or involved.count("(") > _MOST_OF_EACH
        or re.search(r"\)[*+{]", involved)
    ):
        raise ValueError(f"has the pattern {reprlib.repr(pattern)}, which is too involved")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as error:
        shown = reprlib.repr(pattern)
        raise ValueError(f"has the pattern {shown}, no regular expression ({error})") from error
