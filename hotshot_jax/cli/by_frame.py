"""Settings that may differ by frame, as command lines and files write them.

On the command line `5`, or `0:5,16:8` for values at frames 0 and 16; in YAML also a mapping. A text
at a frame is `FRAME: TEXT`, in YAML also a mapping.
"""

import argparse
import json
from collections.abc import Mapping
from typing import Any

Number = float | dict[int, float]


def number_by_frame(value: Any) -> Number:
    """One number, or numbers at key frames.

    Args:
        value: of a command line or a file.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        return _at_frames([(str(key), str(each)) for key, each in value.items()], value)
    parts = [part.partition(":") for part in str(value).split(",")]
    if len(parts) == 1 and not parts[0][1]:
        return _number(parts[0][0], value)
    return _at_frames([(frame, number if colon else "") for frame, colon, number in parts], value)


def number_by_block(value: Any) -> Number | dict[str, Number]:
    """A number by frame for all blocks of a UNet, or for some: `0.8,down1=0.5,up2=0:1,7:0.5`.

    Args:
        value: of a command line or a file; in a file also a mapping of blocks.

    Raises:
        ArgumentTypeError: it is nothing of the kind.
    """
    if isinstance(value, Mapping):
        if any(isinstance(key, str) and not key.lstrip("-").isdigit() for key in value):
            return {str(key): number_by_frame(each) for key, each in value.items()}
        return number_by_frame(value)
    if not isinstance(value, str) or "=" not in value:
        return number_by_frame(value)
    blocks: dict[str, list[str]] = {}
    name = "all"
    for part in value.split(","):
        before, equals, after = part.partition("=")
        if equals:
            name = before.strip()
            if name in blocks:
                raise refused(value, f"{name} is given twice")
        if not equals and name in blocks and not (":" in part and ":" in blocks[name][0]):
            raise refused(value, f"{name} has two values, and not by frame")
        blocks.setdefault(name, []).append(after if equals else part)
    return {name: number_by_frame(",".join(parts)) for name, parts in blocks.items()}


def text_at_frame(value: Any) -> tuple[int, str]:
    """A frame and the text that holds there: `16: a blue star`.

    Args:
        value: of a command line or a file; in a file also a pair.

    Raises:
        ArgumentTypeError: it is neither.
    """
    return _at_frame(value, '"FRAME: PROMPT", such as "16: a blue star"')


def picture_at_frame(value: Any) -> str:
    """A frame and the picture that it is to be, as they are written: `16: cat.png`.

    Args:
        value: of a command line or a file; in a file also a pair.

    Raises:
        ArgumentTypeError: it is neither.
    """
    frame, path = _at_frame(value, '"FRAME: PICTURE", such as "16: cat.png"')
    return f"{frame}: {path}"


def _at_frame(value: Any, expected: str) -> tuple[int, str]:
    if isinstance(value, Mapping) and len(value) == 1:
        (value,) = value.items()
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[1], str):
        frame, text = str(value[0]), value[1]
    else:
        frame, colon, text = str(value).partition(":")
        if not colon:
            raise refused(value, f"expected {expected}")
    return _frame(frame, value), text.strip()


def _at_frames(pairs: list[tuple[str, str]], value: Any) -> dict[int, float]:
    numbers: dict[int, float] = {}
    for frame, number in pairs:
        key = _frame(frame, value)
        if key in numbers:
            raise refused(value, f"frame {key} is given twice")
        numbers[key] = _number(number, value)
    return numbers


def _frame(text: str, value: Any) -> int:
    try:
        return int(text)
    except ValueError:
        raise refused(value, f"{text.strip()!r} is no number of a frame") from None


def _number(text: str, value: Any) -> float:
    try:
        return float(text)
    except ValueError:
        expected = "expected a number, or FRAME:NUMBER separated by commas, such as 0:5,16:8"
        raise refused(value, expected) from None


def refused(value: Any, reason: str) -> argparse.ArgumentTypeError:
    """What is raised where a value has the wrong form.

    Args:
        value: of a command line or a file.
        reason: what is wrong with it, or what was expected.
    """
    shown = value if isinstance(value, str) else json.dumps(value, default=str)
    return argparse.ArgumentTypeError(f"{shown[:100]!r}: {reason}")
