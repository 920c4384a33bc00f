"""Settings that a run kept in its result, to be run again."""

from typing import Any

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.media.metadata import read_metadata

STORED = "settings"
"""Key of the settings in a result's metadata."""


def stored_settings(settings: type, path: str) -> Any:
    """Reads the settings that a result holds, without what was about that run alone.

    Args:
        settings: the dataclass that they are of.
        path: the result, as given after `--config`.

    Raises:
        UsageError: it is no result of a run, or damaged.
    """
    try:
        stored = parse_json(read_metadata(path)[STORED])
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
    if not isinstance(stored, dict):
        return stored
    # A picture from elsewhere has no say in what is written where, or what may be fetched.
    flags = flags_of(settings)
    return {
        name: value
        for name, value in stored.items()
        if name not in flags or not flags[name].about_this_run
    }
