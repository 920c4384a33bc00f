"""What a run of `infer.py` is asked to do: flags over a configuration file over defaults."""

import argparse
import dataclasses
import difflib
import json
import os
import reprlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from hotshot_jax.cli.run import Parser
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.aspect_ratios import size_of_aspect_ratio
from hotshot_jax.media.metadata import read_metadata
from hotshot_jax.pipelines.noise import NOISES
from hotshot_jax.pipelines.precision import PRECISIONS

STORED = "settings"
"""Key of the settings in a result's metadata."""

_SIZES = ("width", "height")
_TEXT_ENDINGS = (".yaml", ".yml", ".json")

DEVICES = ("auto", "cpu", "gpu", "tpu")


@dataclasses.dataclass(frozen=True)
class Flag:
    """How a setting is spelled on the command line.

    Attributes:
        help: one line.
        type: of its value; bool makes it a switch.
        choices: the values allowed, where they are few.
        group: heading under which the help lists it.
        about_this_run: left out of what is stored in the result, since it says nothing about the
            picture.
    """

    help: str
    type: type
    group: str
    choices: Sequence[str] | None = None
    about_this_run: bool = False


def _flag(default: Any, help: str, type: type, group: str, **options: Any) -> Any:
    return dataclasses.field(default=default, metadata={"flag": Flag(help, type, group, **options)})


_PROMPT, _SIZE, _SAMPLING, _MODEL, _OUTPUT = "prompt", "size", "sampling", "model", "output"


@dataclasses.dataclass(frozen=True)
class InferSettings:
    """The settings of one run; each field is a flag of the same name."""

    prompt: str = _flag(
        "a bulldog in the captains chair of a spaceship, hd, high quality",
        "what to show",
        str,
        _PROMPT,
    )
    negative_prompt: str = _flag("blurry", "what to move away from", str, _PROMPT)
    prompt_2: str | None = _flag(
        None, "prompt for the second text encoder (default: the same)", str, _PROMPT
    )
    negative_prompt_2: str | None = _flag(
        None, "negative prompt for the second text encoder (default: the same)", str, _PROMPT
    )
    prompts_file: str | None = _flag(
        None, "text file with one prompt a line; each becomes a numbered output", str, _PROMPT
    )
    clip_skip: int = _flag(
        0, "text encoder layers to leave out before the last but one", int, _PROMPT
    )

    aspect_ratio: str | None = _flag(
        None, "one of the seven trained sizes by its ratio, such as 1.75 (672 x 384)", str, _SIZE
    )
    width: int | None = _flag(
        None, "pixels, a multiple of 8 (default: the model's own, 672 for Hotshot-XL)", int, _SIZE
    )
    height: int | None = _flag(
        None, "pixels, a multiple of 8 (default: the model's own, 384 for Hotshot-XL)", int, _SIZE
    )
    target_width: int = _flag(512, "target size that SDXL is told", int, _SIZE)
    target_height: int = _flag(512, "target size that SDXL is told", int, _SIZE)
    og_width: int = _flag(1920, "original size that SDXL is told", int, _SIZE)
    og_height: int = _flag(1080, "original size that SDXL is told", int, _SIZE)
    video_length: int = _flag(8, "frames, 1 to 24; 1 makes a still image", int, _SIZE)
    video_duration: int = _flag(1000, "milliseconds", int, _SIZE)

    seed: int = _flag(455, "same seed, same picture: 0 to 2**64 - 1", int, _SAMPLING)
    steps: int = _flag(30, "denoising steps", int, _SAMPLING)
    scheduler: str = _flag(
        "EulerAncestralDiscreteScheduler",
        "diffusers' class name or a short name such as dpmpp_2m_karras; 'default' takes the "
        "checkpoint's own",
        str,
        _SAMPLING,
    )
    guidance_scale: float = _flag(5.0, "how closely to follow the prompt", float, _SAMPLING)
    guidance_rescale: float = _flag(
        0.0, "contrast correction for strong guidance, 0 to 1", float, _SAMPLING
    )
    eta: float = _flag(0.0, "noise of the DDIM scheduler, 0 to 1", float, _SAMPLING)
    num_videos: int = _flag(1, "videos of each prompt", int, _SAMPLING)
    noise: str = _flag(
        "torch",
        "where random numbers come from: torch gives the pictures that the PyTorch code gives",
        str,
        _SAMPLING,
        choices=NOISES,
    )

    pretrained_path: str | None = _flag(
        None,
        "checkpoint folder or Hub id (such as hotshotco/Hotshot-XL), in the diffusers layout or "
        "converted; default: the built-in small model",
        str,
        _MODEL,
    )
    variant: str | None = _flag(
        None, "weight files to prefer where there are several, such as fp16", str, _MODEL
    )
    precision: str = _flag(
        "f16", "numbers of text encoders and UNet", str, _MODEL, choices=PRECISIONS
    )
    low_vram_mode: bool = _flag(
        False,
        "keep only the model at work in device memory",
        bool,
        _MODEL,
        about_this_run=True,
    )
    device: str = _flag(
        "auto", "device to run on", str, _MODEL, choices=DEVICES, about_this_run=True
    )
    compilation_cache: str | None = _flag(
        None,
        "folder for compiled programs (default: in the user's cache folder); 'none' keeps none",
        str,
        _MODEL,
        about_this_run=True,
    )

    output: str | None = _flag(
        None,
        "file to write: .gif, .mp4, .webp, a folder for PNGs, or .jpg/.png for one frame "
        "(default: a name made of prompt and seed in outputs/)",
        str,
        _OUTPUT,
        about_this_run=True,
    )
    overwrite: bool = _flag(
        False, "replace an output that exists", bool, _OUTPUT, about_this_run=True
    )
    json: bool = _flag(
        False, "end standard output with one line of JSON", bool, _OUTPUT, about_this_run=True
    )

    def stored(self) -> dict[str, Any]:
        """The settings that decide the picture, for the result's metadata."""
        return {
            name: getattr(self, name)
            for name, flag in FLAGS.items()
            if not flag.about_this_run and getattr(self, name) is not None
        }

    def sized(self) -> "InferSettings":
        """These settings with `aspect_ratio` turned into width and height.

        Raises:
            UsageError: a size is given as well, or the ratio is unknown.
        """
        if self.aspect_ratio is None:
            return self
        if self.width is not None or self.height is not None:
            raise UsageError("--aspect_ratio sets width and height; give one or the other.")
        width, height = size_of_aspect_ratio(self.aspect_ratio)
        return dataclasses.replace(self, width=width, height=height, aspect_ratio=None)


FLAGS: Mapping[str, Flag] = {
    field.name: field.metadata["flag"] for field in dataclasses.fields(InferSettings)
}


def parse_settings(arguments: Sequence[str] | None, program: str) -> InferSettings:
    """Reads flags, and the configuration file that they may name.

    Raises:
        UsageError: a flag or a key of the file is unknown, or a value has the wrong form.
    """
    parser = Parser(
        prog=program,
        description="Text to GIF with Hotshot-XL.",
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="settings to start from: a YAML or JSON file, or a result of an earlier run",
    )
    groups: dict[str, Any] = {}
    for field in dataclasses.fields(InferSettings):
        flag: Flag = field.metadata["flag"]
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        shown = "" if field.default in (None, False) else f" (default: {field.default})"
        options: dict[str, Any] = {"help": (flag.help + shown).replace("%", "%%")}
        if flag.type is bool:
            options["action"] = argparse.BooleanOptionalAction
        else:
            options |= {"type": flag.type, "choices": flag.choices}
            if flag.choices is None:
                options["metavar"] = flag.type.__name__.upper()
        groups[flag.group].add_argument(f"--{field.name}", **options)
    given = vars(parser.parse_args(arguments))
    config = given.pop("config", None)
    values = {} if config is None else read_config_file(config)
    # A size on the command line replaces the size of the file, in whichever form either is.
    if "aspect_ratio" in given:
        values = {name: values[name] for name in values if name not in _SIZES}
    if any(name in given for name in _SIZES):
        values.pop("aspect_ratio", None)
    return InferSettings(**(values | given))


def read_config_file(path: str) -> dict[str, Any]:
    """Reads settings from YAML, JSON, or the metadata of a result.

    Raises:
        UsageError: the file is missing, not readable as any of these, or has an unknown key or a
            value of the wrong type.
    """
    if not os.path.exists(path):
        raise UsageError(f"--config {path}: there is no such file.")
    is_text = Path(path).suffix.lower() in _TEXT_ENDINGS
    values = _written_settings(path) if is_text else _stored_settings(path)
    if not isinstance(values, Mapping):
        raise UsageError(
            f"--config {path}: expected keys and values, such as 'steps: 20', one a line."
        )
    # What is null is as if it were not there.
    return {
        name: _checked(path, name, value)
        for name, value in values.items()
        if name not in FLAGS or value is not None
    }


def _written_settings(path: str) -> Any:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        if Path(path).suffix.lower() == ".json":
            return json.loads(text)
        return yaml.safe_load(text)
    except OSError as error:
        raise UsageError(f"--config {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        # PyYAML's messages are several lines long; the place in the file is at their end.
        reason = " ".join(str(error).split())
        raise UsageError(f"--config {path}: not readable as YAML or JSON ({reason}).") from error


def _stored_settings(path: str) -> Any:
    try:
        return json.loads(read_metadata(path)[STORED])
    except (ValueError, KeyError) as error:
        raise UsageError(f"--config {path}: the stored settings are damaged.") from error
    except HotshotError as error:
        raise UsageError(
            f"--config {path}: expected a .yaml or .json file, or a result of an earlier run that "
            f"holds its settings.\n{error}"
        ) from error


def _checked(path: str, name: Any, value: Any) -> Any:
    flag = FLAGS.get(name)
    if flag is None:
        near = difflib.get_close_matches(str(name), FLAGS, 1)
        hint = f"; did you mean {near[0]!r}?" if near else "."
        raise UsageError(f"--config {path}: unknown key {reprlib.repr(name)}{hint}")
    if flag.type is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, flag.type) or (flag.type is int and isinstance(value, bool)):
        raise UsageError(
            f"--config {path}: {name} is {reprlib.repr(value)}; expected a value of type "
            f"{flag.type.__name__}."
        )
    if flag.choices is not None and value not in flag.choices:
        raise UsageError(
            f"--config {path}: {name} is {reprlib.repr(value)}; expected "
            f"{' or '.join(flag.choices)}."
        )
    return value
