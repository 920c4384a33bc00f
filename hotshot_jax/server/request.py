"""What can be asked for: the body of a request, and the settings that it comes to."""

import re
import secrets
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from hotshot_jax.choices import (
    CONTEXT_FUSES,
    CONTEXT_SCHEDULES,
    CONTROL_TYPES,
    INITIAL_NOISES,
    NOISES,
    PREPROCESSING,
)

FRAMES_A_SECOND = 8
"""What Hotshot-XL was trained at."""

_KNOWN_FRAME = re.compile(r"frame_at_([0-9]{1,4})")
UPLOADS = ("video", "extend", "mask", "first_frame", "last_frame", "control")
"""Files that may be sent along, but for `frame_at_N`."""
# OpenAI's name.
_OTHER_UPLOADS = {"input_reference": "first_frame"}
_MOST_TEXT = 1 << 16

_Text = Annotated[str, Field(max_length=_MOST_TEXT)]
_Seed = Annotated[int, Field(ge=0, le=2**64 - 1)]
_ByFrame = dict[Annotated[str, Field(pattern=r"^[0-9]{1,4}$")], FiniteFloat]
_TextByFrame = dict[Annotated[str, Field(pattern=r"^[0-9]{1,4}$")], _Text]


class LoraChoice(BaseModel):
    """A LoRA from the server's folder, and its strength."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(max_length=200)
    scale: FiniteFloat = Field(1.0, ge=-10, le=10)


class Sampling(BaseModel):
    """What a clip and a picture have in common."""

    model_config = ConfigDict(extra="forbid")

    prompt: _Text | None = Field(None, description="What to show.")
    model: str | None = Field(None, max_length=300, description="As `/v1/models` names it.")
    negative_prompt: _Text | None = Field(None, description="What to avoid.")
    prompt_2: _Text | None = Field(None, description="For the second text encoder.")
    negative_prompt_2: _Text | None = Field(None, description="Likewise.")
    size: str | None = Field(None, pattern=r"^[0-9]{1,5}x[0-9]{1,5}$", description="WIDTHxHEIGHT.")
    num_inference_steps: int | None = Field(None, ge=1, le=1000)
    guidance_scale: FiniteFloat | _ByFrame | None = Field(
        None, description="How closely to follow the prompt; a number, or numbers by frame."
    )
    guidance_rescale: FiniteFloat | None = Field(None, ge=0, le=1)
    guidance_interval: tuple[FiniteFloat, FiniteFloat] | None = Field(
        None, description="Fractions of the steps between which there is guidance."
    )
    cache_interval: int | list[int] | None = Field(
        None, description="Every how many steps the whole UNet is run, or in which."
    )
    seed: _Seed | None = Field(None, description="By default one is drawn, and told.")
    eta: FiniteFloat | None = Field(None, ge=0, le=1, description="Noise of DDIM.")
    clip_skip: int | None = Field(None, ge=0, le=100)
    prompt_weights: bool | None = Field(None, description="Whether brackets have their meaning.")
    long_prompts: bool | None = Field(None, description="Whether more than 75 tokens are read.")
    noise: Literal[NOISES] | None = None  # type: ignore[valid-type]
    lora: LoraChoice | list[LoraChoice] | None = Field(
        None, description="LoRAs of the server's folder; `/v1/models` lists them."
    )
    user: str | None = Field(None, max_length=1000, description="Not used.")

    def settings(self) -> dict[str, Any]:
        """The settings that this asks for, by the names that the library has for them."""
        given = self.model_dump(exclude_none=True, exclude={"model", "user", "size", "lora"})
        values = {_NAMES.get(name, name): value for name, value in given.items()}
        if self.size is not None:
            width, _, height = self.size.partition("x")
            values |= {"width": int(width), "height": int(height)}
        if self.lora is not None:
            chosen = self.lora if isinstance(self.lora, list) else [self.lora]
            values["lora"] = [[each.name, each.scale] for each in chosen]
        # Two jobs that name none are two clips.
        values.setdefault("seed", secrets.randbits(32))
        return values


_NAMES = {"num_inference_steps": "steps", "num_frames": "video_length"}


class VideoRequest(Sampling):
    """A clip."""

    width: int | None = Field(None, ge=1, le=8192)
    height: int | None = Field(None, ge=1, le=8192)
    aspect_ratio: str | None = Field(None, max_length=20, description="Of the trained sizes.")
    num_frames: int | None = Field(None, ge=1, le=1024, description="8 by default.")
    fps: FiniteFloat | None = Field(None, gt=0, le=50, description="Frames a second.")
    seconds: FiniteFloat | None = Field(
        None, gt=0, le=1000, description="Length; alone, it means 8 frames a second."
    )
    loop: bool | None = Field(None, description="Whether the last frame leads to the first.")
    ping_pong: bool | None = Field(None, description="Whether it is played back and forth.")
    prompt_at: _TextByFrame | None = Field(None, description="Prompts by frame.")
    negative_prompt_at: _TextByFrame | None = None
    motion_scale: FiniteFloat | _ByFrame | None = Field(
        None, description="How much the temporal layers add."
    )
    context_length: int | None = Field(None, ge=1, le=1024)
    context_overlap: int | None = Field(None, ge=0, le=1024)
    context_schedule: Literal[CONTEXT_SCHEDULES] | None = None  # type: ignore[valid-type]
    context_stride: int | None = Field(None, ge=1, le=10)
    context_fuse: Literal[CONTEXT_FUSES] | None = None  # type: ignore[valid-type]
    initial_noise: Literal[INITIAL_NOISES] | None = None  # type: ignore[valid-type]
    strength: FiniteFloat | None = Field(None, description="How much of `video` is changed.")
    smooth: int | None = Field(None, ge=1, le=100, description="Frames between those of `video`.")
    repaint: int | None = Field(None, ge=1, le=20)
    controlnet: str | None = Field(
        None, max_length=200, description="What follows `control`; `/v1/models` lists them."
    )
    control_type: Literal[CONTROL_TYPES] | None = None  # type: ignore[valid-type]
    control_preprocess: Literal[PREPROCESSING] | None = None  # type: ignore[valid-type]
    controlnet_conditioning_scale: FiniteFloat | _ByFrame | None = None
    control_guidance_start: FiniteFloat | None = None
    control_guidance_end: FiniteFloat | None = None
    control_type_id: int | None = Field(None, ge=0, le=100)
    guess_mode: bool | None = None
    canny_low_threshold: FiniteFloat | None = None
    canny_high_threshold: FiniteFloat | None = None

    @model_validator(mode="after")
    def _check(self) -> "VideoRequest":
        if self.prompt is None and not self.prompt_at:
            raise ValueError("prompt is missing; say what to show")
        if self.size is not None and (self.width is not None or self.height is not None):
            raise ValueError("size says what width and height do; give one or the other")
        if None not in (self.num_frames, self.fps, self.seconds):
            raise ValueError("two of num_frames, fps and seconds say the third; give two")
        return self

    def settings(self) -> dict[str, Any]:
        """See `Sampling`."""
        values = super().settings()
        fps, seconds = values.pop("fps", None), values.pop("seconds", None)
        if seconds is not None:
            values["video_duration"] = round(1000 * seconds)
            if self.num_frames is None:
                values["video_length"] = max(1, round(seconds * (fps or FRAMES_A_SECOND)))
        elif fps is not None:
            values["frame_ms"] = 1000 / fps
        return values


class ImageRequest(Sampling):
    """One frame, or several."""

    prompt: _Text = Field(description="What to show.")
    n: int = Field(1, ge=1, le=10, description="How many; seeds follow each other.")
    response_format: Literal["b64_json"] | None = Field(None, description="Always so.")
    output_format: Literal["png", "jpeg", "webp"] | None = Field(None, description="Or png.")
    quality: str | None = Field(None, max_length=100, description="Not used.")
    style: str | None = Field(None, max_length=100, description="Not used.")

    def settings(self) -> dict[str, Any]:
        """See `Sampling`."""
        values = super().settings() | {"video_length": 1}
        for name in ("n", "response_format", "output_format", "quality", "style"):
            values.pop(name, None)
        return values


def upload_name(part: str) -> str | None:
    """What a file that is sent along is called here; None if there is no such file.

    Args:
        part: its name in the form.
    """
    name = _OTHER_UPLOADS.get(part, part)
    if name in UPLOADS:
        return name
    found = _KNOWN_FRAME.fullmatch(name)
    return None if found is None else f"frame_at_{int(found[1])}"


def known_frame(name: str) -> int | None:
    """The frame that an upload is to be; None if it is none of these."""
    found = _KNOWN_FRAME.fullmatch(name)
    return None if found is None else int(found[1])
