"""Flags that a command line gives and that cannot act, given the others.

Defaults and files are left alone: they hold every setting, also those of no use to a run.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from hotshot_jax.errors import UsageError


@dataclass(frozen=True)
class Acts:
    """When flags act.

    Attributes:
        flags: their names.
        when: whether they do, by the settings of the run.
        otherwise: goes on from "has no effect".
    """

    flags: tuple[str, ...]
    when: Callable[[Any], bool]
    otherwise: str


def given_flags(arguments: Sequence[str] | None) -> frozenset[str]:
    """Names of the flags on a command line, with underscores; None for this process's."""
    return frozenset(
        argument.partition("=")[0].removeprefix("--").removeprefix("no-").replace("-", "_")
        for argument in (sys.argv[1:] if arguments is None else arguments)
        if argument.startswith("--")
    )


def refuse_without_effect(given: Collection[str], settings: Any, rules: Sequence[Acts]) -> None:
    """Refuses flags that cannot act.

    Args:
        given: names of the flags on the command line.
        settings: of the run, as the rules take them.
        rules: all that are to hold.

    Raises:
        UsageError: names the flag, and what it would need.
    """
    for rule in rules:
        useless = [flag for flag in rule.flags if flag.replace("-", "_") in given]
        if useless and not rule.when(settings):
            raise UsageError(f"--{useless[0]} has no effect {rule.otherwise}. Leave it out.")
