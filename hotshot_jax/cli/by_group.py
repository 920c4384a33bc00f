"""Numbers by group of layers, as command lines and files write them.

On the command line `temporal=2,resnets=0.5`, in YAML a mapping; a number alone is for
all other layers.
"""

from collections.abc import Mapping
from typing import Any

from hotshot_jax.cli.by_frame import refused

_OTHERS = "all"
_EXPECTED = "expected GROUP=NUMBER separated by commas, such as temporal=2,resnets=0.5"


def numbers_by_group(value: Any) -> dict[str, float]:
    """A number for each group that is named; what groups there are is not looked at.

    Args:
        value: of a command line or a file; in a file also a mapping.

    Raises:
        ArgumentTypeError: it is nothing of the kind, or a group is given twice.
    """
    if isinstance(value, Mapping):
        pairs = [(str(key), each) for key, each in value.items()]
    else:
        parts = [part.rpartition("=") for part in str(value).split(",")]
        pairs = [(group if equals else _OTHERS, number) for group, equals, number in parts]
    numbers: dict[str, float] = {}
    for group, number in pairs:
        name = group.replace(" ", "")
        if not name:
            raise refused(value, _EXPECTED)
        if name in numbers:
            raise refused(value, f"{name} is given twice")
        numbers[name] = _number(number, value)
    return numbers


def _number(number: Any, value: Any) -> float:
    if isinstance(number, bool) or number is None:
        raise refused(value, _EXPECTED)
    try:
        return float(number)
    except (TypeError, ValueError):
        raise refused(value, _EXPECTED) from None
