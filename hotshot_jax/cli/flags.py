"""Settings as frozen dataclasses whose fields are flags and keys of configuration files.

Flags of a command line that cannot act, given the others, are refused. Defaults and files are left
alone: they hold every setting, also those of no use to a run.
"""

import argparse
import dataclasses
import difflib
import reprlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hotshot_jax.choices import AUTO
from hotshot_jax.cli.run import Parser, Switch
from hotshot_jax.cli.translation import OtherNames, translate
from hotshot_jax.errors import UsageError
from hotshot_jax.files.parsed import ParseError, parse_json, parse_yaml
from hotshot_jax.files.plain_file import MOST_SETTINGS_BYTES, read_text
from hotshot_jax.writing.places import check_local

TEXT_ENDINGS = (".yaml", ".yml", ".json")
DEVICES = (AUTO, "cpu", "gpu", "tpu")
# Finding what a longer one resembles would take for ever.
_LONGEST_NAME = 100
_OF_HOSTS: Mapping[str, tuple[type, str]] = {
    "coordinator_address": (
        str,
        f"HOST:PORT of process 0, or '{AUTO}' under Slurm or Open MPI; not needed on Cloud TPU",
    ),
    "process_count": (int, "processes in all, usually one a host"),
    "process_index": (int, "which of them this one is, from 0"),
}


@dataclasses.dataclass(frozen=True)
class Flag:
    """How a setting is spelled on the command line.

    Attributes:
        help: one line.
        type: of its value, or what reads it from a command line or a file and raises
            ArgumentTypeError; bool makes it a switch.
        choices: the values allowed, where they are few.
        group: heading under which the help lists it.
        about_this_run: left out of what is stored in the result, since it says nothing about the
            picture.
        repeatable: given once for each value; the setting is a tuple.
        bare: the value if the flag is given without one; None if it needs one.
        local: a path on this machine; what is an address is refused.
        source: names what is read, fetched or run; a picture has no say in it.
        keyed: repeatable, and a mapping in a file is as many values.
        stored_if_changed: left out of what is stored while it has its default.
        metavar: what the help calls its value; by default the type.
    """

    help: str
    type: Callable[[Any], Any]
    group: str
    choices: Sequence[str] | None = None
    about_this_run: bool = False
    repeatable: bool = False
    bare: Any = None
    local: bool = False
    source: bool = False
    keyed: bool = False
    stored_if_changed: bool = False
    metavar: str | None = None


def flag(default: Any, help: str, type: Callable[[Any], Any], group: str, **options: Any) -> Any:
    """A field of a dataclass of settings; further options are those of `Flag`."""
    return dataclasses.field(default=default, metadata={"flag": Flag(help, type, group, **options)})


def same_flag(settings: type, name: str, **options: Any) -> Any:
    """A flag as another command has it.

    Args:
        settings: the dataclass of that command's settings.
        name: of the flag.
        options: those of `Flag` that differ.
    """
    field = next(each for each in dataclasses.fields(settings) if each.name == name)
    changed = dataclasses.replace(field.metadata["flag"], **options)
    return dataclasses.field(default=field.default, metadata={"flag": changed})


def host_flag(name: str, group: str) -> Any:
    """A flag about hosts, the same for every command that runs on several."""
    type, help = _OF_HOSTS[name]
    return flag(None, help, type, group, about_this_run=True)


def flags_of(settings: type) -> Mapping[str, Flag]:
    """The flags of a dataclass of settings by name."""
    return {field.name: field.metadata["flag"] for field in dataclasses.fields(settings)}


def parse_flags(
    settings: type,
    arguments: Sequence[str] | None,
    program: str,
    description: str,
    config_help: str,
    names: OtherNames | None = None,
    examples: str = "",
    switches: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The values given on the command line, `config` among them, without any default.

    Args:
        settings: the dataclass.
        arguments: of the command line; None for this process's.
        program: name of the command.
        description: what it does.
        config_help: what `--config` takes.
        names: what other tools call the flags; the help does not list them.
        examples: the end of the help.
        switches: names of what is no setting, with their help; given as True.

    Raises:
        UsageError: a flag is unknown or given twice, or a value has the wrong form.
    """
    parser = Parser(
        prog=program,
        description=description,
        argument_default=argparse.SUPPRESS,
        epilog=examples,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="FILE", help=config_help)
    for name, help in (switches or {}).items():
        parser.add_argument(f"--{name}", action="store_true", help=help)
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(settings):
        flag: Flag = field.metadata["flag"]
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        default = field.default
        if isinstance(default, tuple):
            default = ":".join(f"{each:g}" for each in default)
        shown = "" if default in (None, False, "") else f" (default: {default})"
        options: dict[str, Any] = {"help": (flag.help + shown).replace("%", "%%")}
        if flag.type is bool:
            options["action"] = Switch
        else:
            options |= {"type": flag.type, "choices": flag.choices}
            if flag.choices is None:
                options["metavar"] = flag.metavar or flag.type.__name__.upper()
            if flag.repeatable:
                options["action"] = "append"
            if flag.bare is not None:
                options |= {"nargs": "?", "const": flag.bare}
        groups[flag.group].add_argument(f"--{field.name}", **options)
    if names is not None:
        bare = [name for name, flag in flags_of(settings).items() if flag.type is bool]
        valued = [name for name in ("config", *flags_of(settings)) if name not in bare]
        arguments = sys.argv[1:] if arguments is None else arguments
        bare += ["help", "version", *(switches or ())]
        arguments = translate(arguments, bare, valued, names)
    given = vars(parser.parse_args(arguments))
    for name, flag in flags_of(settings).items():
        value = given.get(name) if flag.local else None
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, str):
                check_local(each, f"--{name}")
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
    }


def written_settings(path: str, flag: str = "--config") -> Any:
    """The content of a YAML or JSON file.

    Args:
        path: of the file.
        flag: that names it.

    Raises:
        UsageError: it cannot be read.
    """
    try:
        text = read_text(path, MOST_SETTINGS_BYTES)
        is_json = Path(path).suffix.lower() == ".json"
        return parse_json(text) if is_json else parse_yaml(text)
    except OSError as error:
        raise UsageError(f"{flag} {path}: {error.strerror or error}.") from error
    except (UnicodeDecodeError, ParseError) as error:
        reason = error if isinstance(error, ParseError) else "is not UTF-8 text"
        raise UsageError(f"{flag} {path}: not readable as YAML or JSON: it {reason}.") from error


def checked_settings(
    settings: type, where: str, values: Any, names: OtherNames | None = None
) -> dict[str, Any]:
    """The values of a configuration file, if they are what the dataclass has fields for.

    Args:
        settings: the dataclass.
        where: how messages begin, such as "--config run.yaml".
        values: its content.
        names: what other tools call the settings, for messages.

    Raises:
        UsageError: a key is unknown, or a value of the wrong type.
    """
    if not isinstance(values, Mapping):
        raise UsageError(f"{where}: expected keys and values, such as 'steps: 20', one a line.")
    flags = flags_of(settings)
    # What is null is as if it were not there.
    return {
        name: _checked(flags, where, name, value, names or OtherNames())
        for name, value in values.items()
        if name not in flags or value is not None
    }


def _checked(
    flags: Mapping[str, Flag], where: str, name: Any, value: Any, names: OtherNames
) -> Any:
    flag = flags.get(name)
    if flag is None:
        near = [names.same[name]] if name in names.same else []
        near = near or difflib.get_close_matches(str(name)[:_LONGEST_NAME], flags, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"{where}: unknown key {reprlib.repr(name)}{hint}")
    if flag.repeatable:
        listed = list(value.items()) if flag.keyed and isinstance(value, Mapping) else value
        values = listed if isinstance(listed, list | tuple) else [listed]
        return tuple(_checked_value(flag, where, name, each) for each in values)
    return _checked_value(flag, where, name, value)


def _checked_value(flag: Flag, where: str, name: str, value: Any) -> Any:
    if not isinstance(flag.type, type):
        try:
            return flag.type(value)
        except argparse.ArgumentTypeError as error:
            raise UsageError(f"{where}: {name} is {error}.") from error
    if flag.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, flag.type) or (flag.type is int and isinstance(value, bool)):
        raise UsageError(
            f"{where}: {name} is {reprlib.repr(value)}; expected a value of type "
            f"{flag.type.__name__}."
        )
    if flag.local:
        check_local(str(value), f"{where}: {name}")
    if flag.choices is not None and value not in flag.choices:
        raise UsageError(
            f"{where}: {name} is {reprlib.repr(value)}; expected {' or '.join(flag.choices)}."
        )
    return value


@dataclasses.dataclass(frozen=True)
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
