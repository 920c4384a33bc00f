"""JSON and YAML that others wrote: parsed to values that are safe to walk through and to print."""

import json
from typing import Any

from hotshot_jax.files.plain_file import MOST_DEPTH, MOST_DIGITS, MOST_SETTINGS_BYTES, MOST_VALUES

_CONTAINERS = (dict, list, tuple, set)


class ParseError(ValueError):
    """The text cannot be used; the message is a clause that goes on from its name."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON.

    Args:
        text: in UTF-8, if bytes.

    Returns:
        The value. A key named twice in one object is an error, not "the last one wins".

    Raises:
        ParseError: it is no JSON in UTF-8, or beyond the limits: nested too deeply, too many
            values, a number of too many digits.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8")
        # Counts what stands in strings too, but costs next to nothing.
        if text.count(",") + text.count("[") + text.count("{") > MOST_VALUES:
            raise ParseError("holds too many values")
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_int=_integer)
    except UnicodeDecodeError as error:
        raise ParseError(f"is not UTF-8 text (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise ParseError(
            f"is not valid JSON: {error.msg} (line {error.lineno}, column {error.colno})"
        ) from None
    except RecursionError:
        raise ParseError("is not valid JSON: nested too deeply") from None
    _check(value)
    return value


def parse_yaml(text: str) -> Any:
    """Parse YAML, in its safe subset.

    Raises:
        ParseError: it is no YAML, or beyond the limits (see `parse_json`).
    """
    import yaml

    if len(text) > MOST_SETTINGS_BYTES:
        raise ParseError(f"has more than {MOST_SETTINGS_BYTES} characters")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        # PyYAML's messages are several lines long; the place in the file is at their end.
        raise ParseError(f"is not valid YAML: {' '.join(str(error).split())}") from error
    except RecursionError:
        raise ParseError("is not valid YAML: nested too deeply") from None
    # What PyYAML's constructors raise on numbers and dates that are none.
    except (ValueError, TypeError, OverflowError, AttributeError, KeyError, IndexError) as error:
        raise ParseError(f"is not valid YAML: {error}") from error
    _check(value)
    return value


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise _too_many_digits()
    return int(digits)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise ParseError(f"names {key!r} twice")
            seen.add(key)
    return result


def _check(value: Any) -> None:
    # By hand, since what is nested too deeply cannot be walked through by recursion. YAML's
    # aliases can make it endless, or far larger than its text.
    level: list[Any] = [value]
    count = 0
    for depth in range(MOST_DEPTH + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, int) and abs(each) >= 10**MOST_DIGITS:
                raise _too_many_digits()
            if not isinstance(each, _CONTAINERS):
                continue
            if depth == MOST_DEPTH:
                raise ParseError(f"is nested more than {MOST_DEPTH} deep")
            inner += each
            if isinstance(each, dict):
                inner += each.values()
            if count + len(inner) > 2 * MOST_VALUES:
                raise ParseError("holds too many values")
        count += len(inner)
        level = inner


def _too_many_digits() -> ParseError:
    return ParseError(f"has a number of more than {MOST_DIGITS} digits")
