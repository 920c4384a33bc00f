"""Settings about the steps of a run, as command lines and files write them.

Numbers are checked where their range is known, see `sampling.step_plan`.
"""

from typing import Any

from hotshot_jax.cli.by_frame import refused

_STEPS = "expected a number of steps, such as 3, or steps separated by commas, such as 0,1,2,5,8"


def cache_interval(value: Any) -> int | tuple[int, ...]:
    """A number of steps, `3`, or a list of steps, `0,1,2,5,8`.

    Args:
        value: of a command line or a file; in a file also a list.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and "," not in value:
        return _step(value, value)
    if isinstance(value, str):
        return tuple(_step(part, value) for part in value.removesuffix(",").split(","))
    if isinstance(value, list | tuple):
        return tuple(_step(each, value) for each in value)
    raise refused(value, _STEPS)


def guidance_interval(value: Any) -> tuple[float, float]:
    """Two fractions of the steps, `0:0.8`.

    Args:
        value: of a command line or a file; in a file also a list of two numbers.

    Raises:
        ArgumentTypeError: it is neither.
    """
    parts = value.split(":") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        # YAML reads 0:0.8 without quotes as a number of base 60.
        quoted = "" if isinstance(value, str) else ", in quotes, or a list of two numbers"
        raise refused(value, f"expected LOW:HIGH, such as 0:0.8{quoted}")
    low, high = (_fraction(part, value) for part in parts)
    return low, high


def _step(part: Any, value: Any) -> int:
    if isinstance(part, bool | float):
        raise refused(value, _STEPS)
    try:
        return int(part)
    except (TypeError, ValueError):
        raise refused(value, _STEPS) from None


def _fraction(part: Any, value: Any) -> float:
    if isinstance(part, bool):
        raise refused(value, "expected two numbers")
    try:
        return float(part)
    except (TypeError, ValueError):
        raise refused(value, "expected two numbers, such as 0:0.8") from None
