"""What a run of `infer.py` is asked to make."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from hotshot_jax.choices import (
    CONTEXT_FUSES,
    CONTEXT_SCHEDULES,
    INITIAL_NOISES,
    NOISES,
    PREDICTION_TYPES,
    SPACINGS,
)
from hotshot_jax.cli.by_frame import (
    Number,
    number_by_block,
    number_by_frame,
    picture_at_frame,
    text_at_frame,
)
from hotshot_jax.cli.by_step import cache_interval, guidance_interval
from hotshot_jax.cli.flags import flag
from hotshot_jax.cli.infer.presets import PRESETS
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings

_PROMPT, _SIZE, _SAMPLING = "prompt", "size", "sampling"
_LONG: Mapping[str, Any] = {
    "group": "loops, long clips and texts that change",
    "stored_if_changed": True,
}

_START: Mapping[str, Any] = {
    "group": "clips that start from something",
    "stored_if_changed": True,
}


@dataclasses.dataclass(frozen=True)
class ClipFlags:
    """What to make; each field is a flag of the same name."""

    prompt: str = flag(
        "a bulldog in the captains chair of a spaceship, hd, high quality",
        "what to show; the built-in model and copies of it have a default of their own",
        str,
        _PROMPT,
    )
    negative_prompt: str = flag(ClipSettings.negative_prompt, "what to avoid", str, _PROMPT)
    prompt_2: str | None = flag(
        None, "prompt for the second text encoder (default: the same)", str, _PROMPT
    )
    negative_prompt_2: str | None = flag(
        None, "negative prompt for the second text encoder (default: the same)", str, _PROMPT
    )
    prompts_file: str | None = flag(
        None,
        "text file with one prompt a line; each becomes a numbered output",
        str,
        _PROMPT,
        local=True,
        source=True,
    )
    clip_skip: int = flag(
        ClipSettings.clip_skip,
        "text encoder layers to leave out before the last but one",
        int,
        _PROMPT,
    )
    prompt_weights: bool = flag(
        ClipSettings.prompt_weights,
        "(word:1.3) and [word] weigh words, [cat:dog:0.5] changes them during the run, BREAK "
        "begins a new piece, \\( is a bracket; --no-prompt_weights takes all of it as text",
        bool,
        _PROMPT,
    )
    long_prompts: bool = flag(
        ClipSettings.long_prompts,
        "read what exceeds 75 tokens in further pieces, instead of cutting it",
        bool,
        _PROMPT,
    )

    aspect_ratio: str | None = flag(
        None, "one of the seven trained sizes by its ratio, such as 1.75 (672 x 384)", str, _SIZE
    )
    width: int | None = flag(
        None,
        "pixels, a multiple of 8 (default: 672; 128 for the built-in model and copies of it)",
        int,
        _SIZE,
    )
    height: int | None = flag(
        None,
        "pixels, a multiple of 8 (default: 384; 128 for the built-in model and copies of it)",
        int,
        _SIZE,
    )
    target_width: int = flag(ClipSettings.target_size[0], "target size told to SDXL", int, _SIZE)
    target_height: int = flag(ClipSettings.target_size[1], "target size told to SDXL", int, _SIZE)
    og_width: int = flag(ClipSettings.original_size[0], "original size told to SDXL", int, _SIZE)
    og_height: int = flag(ClipSettings.original_size[1], "original size told to SDXL", int, _SIZE)
    video_length: int = flag(
        ClipSettings.video_length, "frames, 1 to 1024; 1 makes a still image", int, _SIZE
    )
    # What is None becomes a number by the length of the clip, see `InferSettings`.
    video_duration: int = flag(
        None, "milliseconds (default: 1000; 125 a frame for more than 24 frames)", int, _SIZE
    )

    loop: bool = flag(
        ClipSettings.loop, "make the last frame lead back to the first", bool, **_LONG
    )
    ping_pong: bool = flag(
        ClipSettings.ping_pong, "play the clip forwards, then backwards", bool, **_LONG
    )
    prompt_at: tuple[tuple[int, str], ...] = flag(
        ClipSettings.prompt_at,
        'a prompt that holds at a frame, such as "16: a blue star"; the frames between two blend '
        "them, and --prompt, if given, holds at frame 0; repeatable",
        text_at_frame,
        repeatable=True,
        keyed=True,
        metavar='"FRAME: PROMPT"',
        **_LONG,
    )
    negative_prompt_at: tuple[tuple[int, str], ...] = flag(
        ClipSettings.negative_prompt_at,
        "the same for what to avoid; repeatable",
        text_at_frame,
        repeatable=True,
        keyed=True,
        metavar='"FRAME: PROMPT"',
        **_LONG,
    )
    motion_scale: Number | dict[str, Number] = flag(
        ClipSettings.motion_scale,
        "how much the temporal layers add; by frame as 0:1,16:0.5, by block of the UNet as "
        "0.8,down1=0.5",
        number_by_block,
        metavar="NUMBER",
        **_LONG,
    )
    context_length: int | None = flag(
        None,
        "frames of a window in which a clip is made (default: all up to 24, otherwise 8)",
        int,
        **_LONG,
    )
    context_overlap: int | None = flag(
        None, "frames that neighbouring windows share (default: half a window)", int, **_LONG
    )
    context_schedule: str | None = flag(
        None,
        "where windows lie in each step (default: standard_static; looped_uniform with --loop)",
        str,
        choices=CONTEXT_SCHEDULES,
        **_LONG,
    )
    context_stride: int = flag(
        ClipSettings.context_stride,
        "levels of the uniform schedules; level l takes every 2^l-th frame",
        int,
        **_LONG,
    )
    context_fuse: str = flag(
        ClipSettings.context_fuse,
        "how frames that are in several windows are weighted",
        str,
        choices=CONTEXT_FUSES,
        **_LONG,
    )
    context_batch: int | None = flag(
        None,
        "windows that are made at once (default: one on each device along data); changes nothing "
        "but time and memory",
        int,
        about_this_run=True,
        **_LONG,
    )
    initial_noise: str = flag(
        ClipSettings.initial_noise,
        "first noise of a long clip; freenoise repeats that of the first window, shuffled",
        str,
        choices=INITIAL_NOISES,
        **_LONG,
    )

    video: str | None = flag(
        None,
        "clip to start from: GIF, MP4, WebM, WebP, a folder of frames, one picture held still, or "
        "an http(s) URL of one; length and size are its own unless they are given",
        str,
        source=True,
        **_START,
    )
    strength: float | None = flag(
        None,
        "how much of --video is changed, above 0 to 1 (default: 0.8; 1 with --mask, 0.5 with "
        "--smooth)",
        float,
        **_START,
    )
    mask: str | None = flag(
        None,
        "where --video is made anew: white is made, black is kept; a picture for all frames, or a "
        "clip",
        str,
        source=True,
        **_START,
    )
    extend: str | None = flag(
        None,
        "clip to go on from; --video_length is what is added, and the result holds both; "
        "--context_fuse is then first",
        str,
        source=True,
        **_START,
    )
    smooth: int | None = flag(
        None,
        "make so many frames between each two of --video, with --loop between last and first too; "
        "--guidance_scale is then 2",
        int,
        **_START,
    )
    frame_at: tuple[str, ...] = flag(
        (),
        'a picture that a frame is to be, such as "0: cat.png"; repeatable',
        picture_at_frame,
        repeatable=True,
        keyed=True,
        source=True,
        metavar='"FRAME: PICTURE"',
        **_START,
    )
    first_frame: str | None = flag(
        None, "a picture that the first frame is to be", str, source=True, **_START
    )
    last_frame: str | None = flag(
        None, "a picture that the last frame is to be", str, source=True, **_START
    )
    repaint: int = flag(
        1,
        "how often each step is made where something is kept; 2 fits what is made better to it, in "
        "twice the time (default: 1; 2 with --smooth and --extend)",
        int,
        **_START,
    )
    first_frame_attention: bool = flag(
        False,
        "has every frame see the first one directly (in windows, the window's first), so that they "
        "look more alike and move less",
        bool,
        **_START,
    )

    seed: int = flag(ClipSettings.seed, "same seed, same picture: 0 to 2**64 - 1", int, _SAMPLING)
    steps: int = flag(ClipSettings.steps, "denoising steps", int, _SAMPLING)
    scheduler: str = flag(
        ModelSettings.scheduler,
        "diffusers' class name or a short name such as dpmpp_2m_karras; 'default' takes the "
        "checkpoint's own",
        str,
        _SAMPLING,
    )
    timestep_spacing: str | None = flag(
        None,
        "which timesteps the scheduler visits (default: as the checkpoint's configuration says)",
        str,
        _SAMPLING,
        choices=SPACINGS,
    )
    prediction_type: str | None = flag(
        None,
        "what the UNet predicts (default: as the model's files say)",
        str,
        _SAMPLING,
        choices=PREDICTION_TYPES,
    )
    zero_terminal_snr: bool | None = flag(
        None,
        "start from pure noise: rescale the betas, trailing timesteps (default: likewise)",
        bool,
        _SAMPLING,
    )
    preset: str | None = flag(
        None,
        "settings that go together: balanced and fast for any model, the others for a model of "
        "few steps; flags win",
        str,
        _SAMPLING,
        choices=tuple(PRESETS),
    )
    guidance_scale: Number = flag(
        ClipSettings.guidance_scale,
        "how closely to follow the prompt; by frame as 0:5,16:8",
        number_by_frame,
        _SAMPLING,
        metavar="NUMBER",
    )
    guidance_interval: tuple[float, float] = flag(
        ClipSettings.guidance_interval,
        "fractions of the steps between which there is guidance; the others take half the time",
        guidance_interval,
        _SAMPLING,
        metavar="LOW:HIGH",
        stored_if_changed=True,
    )
    guidance_rescale: float = flag(
        ClipSettings.guidance_rescale,
        "contrast correction for strong guidance, 0 to 1",
        float,
        _SAMPLING,
    )
    cache_interval: int | tuple[int, ...] = flag(
        ClipSettings.cache_interval,
        "run the whole UNet every so many steps, or in steps such as 0,1,2,5,8, and only its last "
        "layer in the others (DeepCache)",
        cache_interval,
        _SAMPLING,
        metavar="STEPS",
        stored_if_changed=True,
    )
    eta: float = flag(ClipSettings.eta, "noise of the DDIM scheduler, 0 to 1", float, _SAMPLING)
    num_videos: int = flag(ClipSettings.num_videos, "videos of each prompt", int, _SAMPLING)
    noise: str = flag(
        ClipSettings.noise,
        "where random numbers come from: torch gives the pictures that the PyTorch code gives",
        str,
        _SAMPLING,
        choices=NOISES,
    )
