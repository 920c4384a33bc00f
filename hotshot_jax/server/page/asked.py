"""From what the page's fields hold to a request, and from a clip's settings back to the fields."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.media.metadata import SETTINGS_KEY, read_metadata
from hotshot_jax.server.api.errors import WrongBody
from hotshot_jax.server.failures import BadRequest
from hotshot_jax.server.request import VideoRequest

PICTURES = ("first_frame", "last_frame")
"""Fields that hold a picture."""

NUMBERS = ("num_frames", "num_inference_steps", "guidance_scale", "guidance_rescale",
           "motion_scale", "fps")  # fmt: skip
TEXTS = ("prompt", "size", "seed", "negative_prompt", "prompt_at")
SWITCHES = ("loop", "ping_pong")
LORA = "lora "
"""What the names of fields for the strengths of LoRAs begin with."""

_AT_FRAME = re.compile(r"\s*([0-9]{1,4})\s*:\s*(.*\S)\s*")
# The library's names; and what is read elsewhere here, or is the server's.
_FIELDS = {"steps": "num_inference_steps", "video_length": "num_frames"}
_ELSEWHERE = ("width", "height", "video_duration", "lora", "og_width", "og_height",
              "target_width", "target_height", "num_videos", "precision", "vae_precision", "noise",
              "scheduler", "preset", "model", "pretrained_path", "depth_checkpoint",
              "lora_allow_partial")  # fmt: skip
# What files hold even where it is as always.
_USUAL = {"clip_skip": 0, "prompt_weights": True, "long_prompts": False, "eta": 0,
          "guess_mode": False, "control_preprocess": "auto", "canny_low_threshold": 100,
          "canny_high_threshold": 200}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Asked:
    """What somebody asks for.

    Attributes:
        values: settings, as `VideoRequest.settings` gives them.
        pictures: paths of pictures by their names in the API.
    """

    values: Mapping[str, Any]
    pictures: Mapping[str, Path]


def asked_for(fields: Mapping[str, Any]) -> Asked:
    """What the fields of the page ask for.

    Args:
        fields: their values by name.

    Raises:
        Refusal: a value is not of the right form, in the API's words.
    """
    texts = {name: str(fields[name] or "") for name in TEXTS}
    given: dict[str, Any] = {name: fields[name] for name in NUMBERS if fields[name] is not None}
    given |= {name: True for name in SWITCHES if fields[name]}
    given |= {"prompt": texts["prompt"], "negative_prompt": texts["negative_prompt"]}
    given["size"] = re.sub(r"\s", "", texts["size"]).lower().replace("×", "x")
    if re.fullmatch(r"[0-9]{1,5}x[0-9]{1,5}", given["size"], re.ASCII) is None:
        raise BadRequest("`size` is to be WIDTHxHEIGHT, as 512x512.")
    if texts["seed"].strip():
        given["seed"] = _whole("seed", texts["seed"])
    if texts["prompt_at"].strip():
        given["prompt_at"] = _prompts_by_frame(texts["prompt_at"])
    if not given["prompt"].strip() and "prompt_at" not in given:
        raise BadRequest("`prompt` is missing; say what to show.")
    given["lora"] = [
        {"name": name.removeprefix(LORA), "scale": scale}
        for name, scale in fields.items()
        if name.startswith(LORA) and scale
    ]
    pictures = {name: Path(fields[name]) for name in PICTURES if fields[name]}
    try:
        values = VideoRequest.model_validate(given).settings()
    except ValidationError as error:
        raise WrongBody.of(error) from error
    return Asked(values, pictures)


def _whole(name: str, text: str) -> int:
    if not text.strip().isascii() or not text.strip().isdecimal() or len(text) > 40:
        raise BadRequest(f"`{name}` is no whole number.")
    return int(text)


def _prompts_by_frame(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in filter(str.strip, text.splitlines()):
        match = _AT_FRAME.fullmatch(line)
        if match is None:
            raise BadRequest(
                "`prompt_at` has a frame and a prompt in each line, as 4: a blue star."
            )
        found[str(int(match[1]))] = match[2]
    return found


@dataclasses.dataclass(frozen=True)
class TakenUp:
    """Settings of a clip, to be changed and used again.

    Attributes:
        fields: values of the page's fields by name; those of others stay.
        left_out: settings that are not taken up: the page has no field for them, or they are files.
    """

    fields: Mapping[str, Any]
    left_out: Sequence[str]


def taken_up(path: str | Path) -> TakenUp:
    """The settings that a clip holds which was made here.

    Args:
        path: of a GIF, MP4 or WebP.

    Raises:
        BadRequest: it holds none.
    """
    try:
        stored = parse_json(read_metadata(path)[SETTINGS_KEY])
        if not isinstance(stored, dict):
            raise ParseError("hold no settings")
        return _fields_of(stored)
    except (HotshotError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        raise BadRequest(
            "That file holds no settings of hotshot-jax: another program wrote it, or saved it "
            "again without them."
        ) from error


def _fields_of(values: Mapping[str, Any]) -> TakenUp:
    fields: dict[str, Any] = dict.fromkeys(SWITCHES, False)
    fields |= {"prompt": "", "negative_prompt": "", "prompt_at": "", "guidance_rescale": 0}
    fields |= {"motion_scale": 1}
    left_out = []
    for name, value in values.items():
        field = _FIELDS.get(name, name)
        if field in NUMBERS and isinstance(value, int | float):
            fields[field] = value
        elif field in SWITCHES or field in ("prompt", "negative_prompt"):
            fields[field] = value if field in SWITCHES else str(value or "")
        elif field == "seed":
            fields[field] = str(int(value))
        elif field == "prompt_at":
            fields[field] = "\n".join(_lines(value))
        elif field not in _ELSEWHERE and _USUAL.get(field) != value:
            left_out.append(field)
    if None not in (values.get("width"), values.get("height")):
        fields["size"] = f"{int(values['width'])}x{int(values['height'])}"
    if "video_duration" in values:
        fields["fps"] = round(1000 * values["video_length"] / values["video_duration"], 2)
    for lora in values.get("lora", ()):
        name, scale = _name_and_scale(str(lora))
        fields[LORA + name] = scale
    return TakenUp(fields, left_out)


def _lines(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        return [f"{frame}: {text}" for frame, text in value.items()]
    return [each if isinstance(each, str) else f"{each[0]}: {each[1]}" for each in value]


def _name_and_scale(lora: str) -> tuple[str, float]:
    file, colon, scale = lora.rpartition(":")
    if not colon:
        file, scale = lora, "1"
    return file.removesuffix(".safetensors"), float(scale)
