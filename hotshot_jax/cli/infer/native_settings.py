"""What a checkpoint is used with, where it says so itself, as the built-in model does."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.flags import Flag
from hotshot_jax.convert.formats.small_files import NATIVE_SETTINGS
from hotshot_jax.files.limits import MOST_SETTINGS_BYTES
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.files.plain_file import read_bytes

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
