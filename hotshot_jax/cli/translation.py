"""Command lines as users of other tools write them, in the words of this project."""

import dataclasses
import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hotshot_jax.errors import UsageError

_NUMBER = re.compile(r"-(\d+|\d*\.\d+)([eE][-+]?\d+)?")
_TRUTH = {"true": True, "false": False}


@dataclasses.dataclass(frozen=True)
class OtherNames:
    """What other tools call the flags and values of a command.

    Names are without dashes in front, in lower case, and with underscores.

    Attributes:
        same: names of flags that mean the same; the values are ours.
        instead: flags that are a setting of ours with a value, and what to write for them.
        advice: flags that have no one meaning here, and what to do in their place.
        values: translates values of a flag of ours; what it does not know it gives back.
        bare: the flag that a value without a flag is for.
    """

    same: Mapping[str, str] = dataclasses.field(default_factory=dict)
    instead: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    advice: Mapping[str, str] = dataclasses.field(default_factory=dict)
    values: Mapping[str, Callable[[str], str]] = dataclasses.field(default_factory=dict)
    bare: str | None = None


def translate(
    arguments: Sequence[str], switches: Sequence[str], valued: Sequence[str], names: OtherNames
) -> list[str]:
    """Spells arguments with the flags of this project; what is unknown stays as it is.

    Args:
        arguments: of the command line.
        switches: flags without a value.
        valued: flags with one.
        names: those of other tools.

    Raises:
        UsageError: a flag has no one meaning here, or it is not clear what a value is for.
    """
    result: list[str] = []
    bare: list[str] = []
    rest = list(arguments)
    while rest:
        token = rest.pop(0)
        if not _is_flag(token):
            bare.append(token)
            continue
        given, equals, value = token.lstrip("-").partition("=")
        name = _own_name(token, given, switches, valued, names)
        if name is None:
            result.append(token)
            if not equals and rest and not _is_flag(rest[0]):
                # Its value, most likely; not a prompt.
                result.append(rest.pop(0))
            continue
        if isinstance(name, tuple):
            result += name
        elif name.removeprefix("no-") in switches:
            if not equals and rest and rest[0].lower() in _TRUTH:
                equals, value = "=", rest.pop(0)
            if equals and value.lower() not in _TRUTH:
                raise UsageError(f"--{name} is a switch and takes no value; {value!r} is given.")
            wanted = _TRUTH[value.lower()] if equals else True
            bare_name = name.removeprefix("no-")
            result.append(f"--{'' if wanted == (name == bare_name) else 'no-'}{bare_name}")
        else:
            result.append(f"--{name}")
            convert = names.values.get(name, str)
            if equals:
                result[-1] += f"={convert(value)}"
            elif rest and not _is_flag(rest[0]):
                result.append(convert(rest.pop(0)))
    return result + _for_bare(bare, result, names)


def _own_name(
    token: str,
    given: str,
    switches: Sequence[str],
    valued: Sequence[str],
    names: OtherNames,
) -> str | tuple[str, ...] | None:
    """Our name of a flag, or our arguments in its place; None for one that nobody knows."""
    if token.startswith("--"):
        for name in (given, given.replace("-", "_")):
            if name in switches or name in valued:
                return name
        for prefix in ("no-", "no_"):
            positive = given.removeprefix(prefix).replace("-", "_")
            if given.startswith(prefix) and positive in switches:
                return f"no-{positive}"
    # One letter means another thing in each case.
    name = given if len(given) == 1 else given.lower().replace("-", "_")
    if name in names.same:
        return names.same[name]
    if name in names.instead:
        return tuple(names.instead[name])
    if name in names.advice:
        raise UsageError(f"{token.partition('=')[0]} is not a flag here: {names.advice[name]}")
    return None


def _is_flag(token: str) -> bool:
    name = token.partition("=")[0] if token.startswith("--") else token
    is_number = _NUMBER.fullmatch(token) is not None
    return token.startswith("-") and token != "-" and " " not in name and not is_number


def _for_bare(bare: Sequence[str], given: Sequence[str], names: OtherNames) -> list[str]:
    if not bare or names.bare is None:
        return list(bare)
    flag = f"--{names.bare}"
    if any(token.partition("=")[0] == flag for token in given):
        raise UsageError(
            f"{bare[0]!r} is given without a flag, and {flag} is given too. Put what has spaces in "
            "quotes."
        )
    if len(bare) > 1:
        raise UsageError(
            f"{len(bare)} words are given without a flag. A {names.bare} of several words goes in "
            f"quotes: {flag} {shlex.quote(' '.join(bare))}"
        )
    (value,) = bare
    if os.path.exists(value) or (Path(value).suffix and " " not in value):
        raise UsageError(
            f"{value!r} is given without a flag, and looks like a file. Say what it is for: "
            f"--output, --config, or {flag} if it is the {names.bare}."
        )
    return [flag, value]
