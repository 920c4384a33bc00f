"""`--sample_prompts`: a file of prompts for validation clips, each with settings of its own.

YAML or JSON: a list of prompts, or of mappings with `prompt` and others of `SampleSettings`. Any
other ending: a prompt a line, with the options of kohya's scripts behind it, such as `a red fox
--d 7 --w 512 --h 512 --l 6.5 --n blurry`; `#` begins a comment.
"""

import dataclasses
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hotshot_jax.cli.flags import TEXT_ENDINGS, checked_settings, flag, flags_of, written_settings
from hotshot_jax.errors import UsageError
from hotshot_jax.files.plain_file import MOST_SETTINGS_BYTES, read_text
from hotshot_jax.sampling.request import MAX_SIDE
from hotshot_jax.training.running.validation import Sample

_FLAG = "--sample_prompts"
_OPTIONS = {
    "n": "negative_prompt",
    "d": "seed",
    "w": "width",
    "h": "height",
    "f": "video_length",
    "s": "steps",
    "l": "guidance_scale",
}
_OPTION = re.compile(r"\s--([a-z]+)(?:\s+|$)")
_MOST_STEPS = 1000
_MULTIPLE = 8


@dataclasses.dataclass(frozen=True)
class SampleSettings:
    """What a mapping of the file may say of a clip."""

    prompt: str = flag("", "what to show", str, "sample")
    negative_prompt: str | None = flag(None, "what not to show", str, "sample")
    seed: int = flag(Sample.seed, "fixes the noise", int, "sample")
    width: int | None = flag(None, "pixels", int, "sample")
    height: int | None = flag(None, "pixels", int, "sample")
    video_length: int | None = flag(None, "frames", int, "sample")
    steps: int | None = flag(None, "of denoising", int, "sample")
    guidance_scale: float | None = flag(None, "1 and below mean none", float, "sample")


def read_samples(path: str) -> list[Sample]:
    """The prompts of a file.

    Raises:
        UsageError: it cannot be read, holds no prompt, or says what is out of range or unknown.
    """
    where = f"{_FLAG} {path}"
    if Path(path).suffix.lower() in TEXT_ENDINGS:
        found = list(_listed(where, written_settings(path, _FLAG)))
    else:
        found = list(_lines(where, path))
    if not found:
        raise UsageError(f"{where} holds no prompt.")
    return found


def _listed(where: str, content: Any) -> Iterator[Sample]:
    if not isinstance(content, list):
        raise UsageError(f"{where}: expected a list of prompts, or of mappings with `prompt`.")
    for number, each in enumerate(content, 1):
        values = {"prompt": each} if isinstance(each, str) else each
        yield _checked(f"{where}, prompt {number}", values)


def _lines(where: str, path: str) -> Iterator[Sample]:
    try:
        lines = read_text(path, MOST_SETTINGS_BYTES).splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 text.") from error
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror or error}.") from error
    flags = flags_of(SampleSettings)
    for number, line in enumerate(lines, 1):
        at = f"{where}, line {number}"
        prompt, *options = _OPTION.split(line.strip())
        if not prompt or prompt.startswith("#"):
            continue
        values: dict[str, Any] = {"prompt": prompt}
        for option, text in zip(options[::2], options[1::2], strict=True):
            if option not in _OPTIONS:
                known = ", ".join(f"--{each}" for each in _OPTIONS)
                raise UsageError(f"{at}: --{option} is unknown; expected {known}.")
            name, text = _OPTIONS[option], text.strip()
            try:
                values[name] = flags[name].type(text)
            except ValueError:
                raise UsageError(f"{at}: --{option} is {text!r}; expected a number.") from None
        yield _checked(at, values)


def _checked(where: str, values: Any) -> Sample:
    given = SampleSettings(**checked_settings(SampleSettings, where, values))
    ranges: dict[str, tuple[bool, str]] = {
        "prompt": (bool(given.prompt.strip()), "some text"),
        "seed": (0 <= given.seed < 2**64, "0 to 2**64 - 1"),
        "video_length": (given.video_length is None or given.video_length >= 1, "at least 1"),
        "steps": (given.steps is None or 1 <= given.steps <= _MOST_STEPS, f"1 to {_MOST_STEPS}"),
        "guidance_scale": (
            given.guidance_scale is None or 0 <= given.guidance_scale < math.inf,
            "0 or more",
        ),
    }
    for name in ("width", "height"):
        side = getattr(given, name)
        ranges[name] = (
            side is None or (0 < side <= MAX_SIDE and side % _MULTIPLE == 0),
            f"a multiple of {_MULTIPLE} up to {MAX_SIDE}",
        )
    for name, (holds, expected) in ranges.items():
        if not holds:
            raise UsageError(f"{where}: {name} is {getattr(given, name)!r}; expected {expected}.")
    return Sample(**dataclasses.asdict(given))
