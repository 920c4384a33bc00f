"""From the flags of `infer.py` to its settings: flags over a file over defaults."""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.flags import TEXT_ENDINGS, Flag, checked_settings, flags_of, written_settings
from hotshot_jax.cli.infer.clip_flags import ClipFlags
from hotshot_jax.cli.infer.command import given_flags
from hotshot_jax.cli.infer.presets import preset_values
from hotshot_jax.cli.infer.settings import SIZES, InferSettings
from hotshot_jax.cli.infer.stored_settings import (
    StoredSettings,
    check_repeated,
    stored_settings,
    tell_differences,
)
from hotshot_jax.cli.other_names import INFER
from hotshot_jax.convert.formats.small_files import NATIVE_SETTINGS
from hotshot_jax.errors import UsageError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import MOST_SETTINGS_BYTES, read_bytes

# A checkpoint may say what to draw, not what to read, fetch or run.
_ALLOWED = frozenset(
    (
        "prompt",
        "negative_prompt",
        "width",
        "height",
        "og_width",
        "og_height",
        "target_width",
        "target_height",
        "video_length",
        "video_duration",
        "steps",
        "scheduler",
        "timestep_spacing",
        "guidance_scale",
        "guidance_rescale",
    )
)


@dataclasses.dataclass(frozen=True)
class InferArguments:
    """A command line, read.

    Attributes:
        settings: what the run is asked to do.
        given: the settings that stand on the command line itself.
        config: the file that `--config` names, if it is given.
        named: the settings that stand there or in that file, or that a preset of either sets.
    """

    settings: InferSettings
    given: frozenset[str]
    config: str | None
    named: frozenset[str] = frozenset()


def parse_settings(arguments: Sequence[str]) -> InferSettings:
    """The settings that a command line asks for.

    Raises:
        UsageError: it is wrong, see `given_flags` and `completed`.
    """
    return completed(given_flags(arguments)).settings


def completed(given: Mapping[str, Any]) -> InferArguments:
    """Adds what the configuration file says, and what the model is used with.

    Args:
        given: what stands on the command line itself, from `given_flags`.

    Raises:
        UsageError: a key of the file is unknown, or a value has the wrong form; a picture names
            what to read, and the command line does not.
    """
    given = dict(given)
    config = given.pop("config", None)
    trusted = given.get("trust_config", False)
    values = _configured(config, given, trusted)
    # A size on the command line replaces the size of the file, in whichever form either is.
    if "aspect_ratio" in given:
        values = {name: values[name] for name in values if name not in SIZES}
    if any(name in given for name in SIZES):
        values.pop("aspect_ratio", None)
    if "video_length" in given and "video_duration" not in given:
        # What the length of the file's clip had decided, the length asked for decides anew.
        length = values.get("video_length", ClipFlags.video_length)
        if values.get("video_duration") == InferSettings(video_length=length).video_duration:
            del values["video_duration"]
    if "prompt" not in values | given and (values | given).get("prompt_at"):
        # The default prompt would hold at the first frame.
        values["prompt"] = ""
    if "negative_prompt" not in values | given and (values | given).get("negative_prompt_at"):
        values["negative_prompt"] = ""
    files = InferSettings(**(values | given)).model_files

    def preset(layer: Mapping[str, Any]) -> dict[str, Any]:
        return {} if layer.get("preset") is None else preset_values(layer["preset"], files)

    # A preset from the command line wins over the file's values, a preset in the file does not.
    in_file = {} if "preset" in given else preset(values)
    asked = in_file | values | preset(given) | given
    settings = InferSettings(**(_native_settings(values | given) | asked))
    return InferArguments(settings, frozenset(given), config, frozenset(asked))


def _configured(config: str | None, given: dict[str, Any], trusted: bool) -> dict[str, Any]:
    """The settings of the file that `--config` names.

    Raises:
        UsageError: the file is missing, not readable as any of the kinds, or has an unknown key or
            a value of the wrong type; it is a picture that names what to read.
    """
    picture = config is not None and Path(config).suffix.lower() not in TEXT_ENDINGS
    if trusted and not picture:
        raise UsageError("--trust_config is for a picture after --config; leave it out.")
    if config is None:
        return {}
    if not os.path.exists(config):
        raise UsageError(f"--config {config}: there is no such file.")
    if not picture:
        return checked_settings(
            InferSettings, f"--config {config}", written_settings(config), INFER
        )
    stored = stored_settings(InferSettings, config)
    values = checked_settings(InferSettings, f"--config {config}", stored.values, INFER)
    if not trusted:
        check_repeated(InferSettings(), config, values, given)
    tell_differences(InferSettings, config, StoredSettings(values, stored.digests), values | given)
    return values


def _native_settings(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the model is used with, unless something else is asked for."""
    native = native_settings(asked.get("pretrained_path"), flags_of(InferSettings))
    taken = SIZES if "aspect_ratio" in asked else ()
    return {name: value for name, value in native.items() if name not in taken}


def native_settings(pretrained_path: str | None, flags: Mapping[str, Flag]) -> dict[str, Any]:
    """The settings that lie in a checkpoint's folder.

    Args:
        pretrained_path: the checkpoint; None for the built-in model.
        flags: what each setting may be.

    Returns:
        Values by name; none where there is no such file, or one of that name from another tool.
    """
    folder = builtin_checkpoint() if pretrained_path is None else Path(pretrained_path)
    try:
        values = parse_json(read_bytes(folder / NATIVE_SETTINGS, MOST_SETTINGS_BYTES))
    except (OSError, ParseError):
        return {}
    if not isinstance(values, dict) or not _ALLOWED.issuperset(values):
        return {}
    fit = all(value is None or _fits(flags[name], value) for name, value in values.items())
    return values if fit else {}


def _fits(flag: Flag, value: Any) -> bool:
    allowed = flag.type if isinstance(flag.type, type) and flag.type is not float else (int, float)
    return (
        isinstance(value, allowed)
        and not isinstance(value, bool)
        and (flag.choices is None or value in flag.choices)
    )
