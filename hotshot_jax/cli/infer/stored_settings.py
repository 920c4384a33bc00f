"""Settings that a run kept in its result, to be run again.

A picture may come from anywhere. It says what to draw; what is read, fetched or run is for the
person to say, on the command line.
"""

import dataclasses
import logging
import shlex
from collections.abc import Collection, Mapping
from typing import Any

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.infer.sources import (
    SOURCES,
    digest,
    place,
    public_name,
    source_flags,
    values_of,
)
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.media.metadata import read_metadata

logger = logging.getLogger(__name__)

STORED = "settings"
"""Key of the settings in a result's metadata."""

_MOST_SHOWN = 2000


@dataclasses.dataclass(frozen=True)
class StoredSettings:
    """What a result holds.

    Attributes:
        values: the settings, without what was about that run alone; anything, if damaged.
        digests: of what the run read, by flag.
    """

    values: Any
    digests: Mapping[str, Any]


def stored_settings(settings: type, path: str) -> StoredSettings:
    """Reads the settings that a result holds.

    Args:
        settings: the dataclass that they are of.
        path: the result, as given after `--config`.

    Raises:
        UsageError: it is no result of a run, or damaged.
    """
    try:
        metadata = read_metadata(path)
        stored = parse_json(metadata[STORED])
        digests = parse_json(metadata.get(SOURCES, "{}"))
    except KeyError as error:
        raise UsageError(f"--config {path}: the stored settings are damaged.") from error
    except ParseError as error:
        raise UsageError(
            f"--config {path}: the stored settings are damaged: their text {error}."
        ) from error
    except HotshotError as error:
        raise UsageError(
            f"--config {path}: expected a .yaml or .json file, or a result of an earlier run that "
            f"holds its settings.\n{error}"
        ) from error
    if not isinstance(digests, dict):
        digests = {}
    if not isinstance(stored, dict):
        return StoredSettings(stored, digests)
    # A picture from elsewhere has no say in what is written where, or what may be fetched.
    flags = flags_of(settings)
    values = {
        name: value
        for name, value in stored.items()
        if name not in flags or not flags[name].about_this_run
    }
    return StoredSettings(values, digests)


def check_repeated(
    defaults: Any, path: str, values: Mapping[str, Any], given: Collection[str]
) -> None:
    """Checks that the command line names again whatever the settings of a picture would read.

    Args:
        defaults: the dataclass of settings with its defaults, which may be read unasked.
        path: of the picture.
        values: its settings, checked.
        given: the flags on the command line.

    Raises:
        UsageError: a source is not repeated; the message has the flags to copy.
    """
    missing = [
        argument_text(name, argument)
        for name in source_flags(type(defaults))
        if name in values and name not in given and values[name] != getattr(defaults, name)
        for argument in values_of(values[name])
    ]
    if missing:
        raise UsageError(
            f"--config {path} is a picture, and what to read is for you to say, not for it. Repeat "
            "this, files with their paths, or take it as it is with --trust_config:\n"
            f"{_shortened(' '.join(missing))}"
        )


def tell_differences(
    settings: type,
    path: str,
    stored: StoredSettings,
    given: Mapping[str, Any],
) -> None:
    """Warns where a picture was made with other files than those that are now read.

    Args:
        settings: the dataclass of settings.
        path: of the picture.
        stored: what it holds, checked.
        given: what is read now, by flag.
    """
    for name in source_flags(settings):
        if name not in stored.values or name not in given:
            continue
        now = values_of(given[name])
        known = stored.digests.get(name)
        for index, argument in enumerate(values_of(stored.values[name])):
            same = [each for each in now if public_name(name, each) == public_name(name, argument)]
            if not same:
                logger.warning(
                    "--config %s was made with %s, which is not given.",
                    path,
                    _shortened(argument_text(name, argument)),
                )
            elif isinstance(known, list) and index < len(known) and isinstance(known[index], str):
                found = digest(place(name, same[0])[0])
                if found and known[index] and found != known[index]:
                    logger.warning(
                        "%s is not what --config %s was made with: its content is another.",
                        _shortened(argument_text(name, same[0])),
                        path,
                    )


def argument_text(name: str, value: str) -> str:
    """A flag and its value for a shell; nothing in it acts on a terminal."""
    quoted = shlex.quote(value)
    if not value.isprintable():
        escaped = "".join(
            each if each.isprintable() and each not in "'\\" else _escaped(each) for each in value
        )
        quoted = f"$'{escaped}'"
    return f"--{name}={quoted}" if value.startswith("-") else f"--{name} {quoted}"


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _shortened(text: str) -> str:
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]} ..."
