"""What a run of `infer.py` is asked to do."""

import dataclasses
from typing import Any

from hotshot_jax.choices import (
    CONTROL_TYPES,
    DEPTH_CHECKPOINT,
    HIGH_THRESHOLD,
    LOW_THRESHOLD,
    NOISES,
    PRECISIONS,
    PREDICTION_TYPES,
    PREPROCESSING,
    SPACINGS,
)
from hotshot_jax.cli import machine_flags
from hotshot_jax.cli.flags import flag, flags_of
from hotshot_jax.cli.infer.presets import PRESETS
from hotshot_jax.compile_effort import EFFORTS
from hotshot_jax.errors import UsageError
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings, RunSettings
from hotshot_jax.media.aspect_ratios import size_of_aspect_ratio

SIZES = ("width", "height")

_PROMPT, _SIZE, _SAMPLING, _MODEL, _OUTPUT = "prompt", "size", "sampling", "model", "output"
_CONTROL = "composition (ControlNet)"
_HOSTS = "several devices and hosts"


@dataclasses.dataclass(frozen=True)
class InferSettings:
    """The settings of one run; each field is a flag of the same name."""

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
        ClipSettings.video_length, "frames, 1 to 24; 1 makes a still image", int, _SIZE
    )
    video_duration: int = flag(1000, "milliseconds", int, _SIZE)

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
        "scheduler, timestep spacing, steps and guidance for a model of few steps; flags win",
        str,
        _SAMPLING,
        choices=tuple(PRESETS),
    )
    guidance_scale: float = flag(
        ClipSettings.guidance_scale, "how closely to follow the prompt", float, _SAMPLING
    )
    guidance_rescale: float = flag(
        ClipSettings.guidance_rescale,
        "contrast correction for strong guidance, 0 to 1",
        float,
        _SAMPLING,
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

    pretrained_path: str | None = flag(
        None,
        "checkpoint folder or Hub id (such as hotshotco/Hotshot-XL), in the diffusers layout or "
        "converted, or a single SDXL file with --temporal; default: the built-in small model",
        str,
        _MODEL,
        source=True,
    )
    variant: str | None = flag(
        None, "weight files to prefer where there are several, such as fp16", str, _MODEL
    )
    spatial_unet_base: str | None = flag(
        None,
        "any SDXL whose UNet replaces the spatial layers: folder, single file or Hub id",
        str,
        _MODEL,
        source=True,
    )
    base: str | None = flag(
        None,
        "any SDXL for spatial layers, text encoders and VAE, likewise",
        str,
        _MODEL,
        source=True,
    )
    temporal: str | None = flag(
        None,
        "temporal layers from elsewhere: hsxl_temporal_layers.safetensors, a Hotshot-XL UNet, "
        "ComfyUI's file or a diffusers MotionAdapter",
        str,
        _MODEL,
        source=True,
    )
    vae: str | None = flag(None, "another VAE: folder, file or Hub id", str, _MODEL, source=True)
    lora: tuple[str, ...] = flag(
        (),
        "LoRA file, folder or Hub id, PATH or PATH:SCALE; repeatable",
        str,
        _MODEL,
        repeatable=True,
        source=True,
    )
    lora_allow_partial: bool = flag(
        ModelSettings.lora_allow_partial,
        "leave out modules of a LoRA that the model lacks, instead of refusing it",
        bool,
        _MODEL,
    )
    embedding: tuple[str, ...] = flag(
        (),
        "textual inversion, PATH or PATH:WORD: a file, folder or Hub id, and what stands for it in "
        "prompts (default: the file's name); repeatable",
        str,
        _MODEL,
        repeatable=True,
        source=True,
    )
    precision: str = flag(
        ModelSettings.precision, "numbers of encoders and UNet", str, _MODEL, choices=PRECISIONS
    )
    low_vram_mode: bool = flag(
        RunSettings.low_vram_mode,
        "keep only the model at work in device memory",
        bool,
        _MODEL,
        about_this_run=True,
    )
    device: str = flag(
        "auto", "device to run on", str, _MODEL, choices=machine_flags.DEVICES, about_this_run=True
    )
    compilation_cache: str | None = flag(
        None,
        "folder for compiled programs (default: in the user's cache folder); 'none' keeps none",
        str,
        _MODEL,
        about_this_run=True,
        local=True,
    )
    compile_effort: str | None = flag(
        None,
        "on TPUs, how long the compiler may look for a faster program (default: O1; O2, its own "
        "default, takes three times as long)",
        str,
        _MODEL,
        choices=EFFORTS,
        about_this_run=True,
    )

    control_type: tuple[str, ...] = flag(
        (),
        "what the GIF gives the composition by; repeatable, one for each ControlNet or one for all",
        str,
        _CONTROL,
        choices=CONTROL_TYPES,
        repeatable=True,
    )
    gif: tuple[str, ...] = flag(
        (),
        "clip to follow: GIF, MP4, WebM, WebP, a folder of frames, one picture held still, or an "
        "http(s) URL of one; repeatable, one for each ControlNet or one for all",
        str,
        _CONTROL,
        repeatable=True,
        source=True,
    )
    allow_private_urls: bool = flag(
        False,
        "let --gif fetch from this machine and private networks",
        bool,
        _CONTROL,
        about_this_run=True,
    )
    controlnet: tuple[str, ...] = flag(
        (),
        "SDXL ControlNet: folder, file or Hub id (default: diffusers' for the control type); "
        "repeatable",
        str,
        _CONTROL,
        repeatable=True,
        source=True,
    )
    controlnet_conditioning_scale: tuple[float, ...] = flag(
        (),
        "strength (default: 0.7; 1 for the built-in model's own); repeatable",
        float,
        _CONTROL,
        repeatable=True,
    )
    control_guidance_start: tuple[float, ...] = flag(
        (),
        "fraction of the steps before it acts (default: 0); repeatable",
        float,
        _CONTROL,
        repeatable=True,
    )
    control_guidance_end: tuple[float, ...] = flag(
        (),
        "fraction of the steps after which it rests (default: 1); repeatable",
        float,
        _CONTROL,
        repeatable=True,
    )
    control_type_id: tuple[int, ...] = flag(
        (),
        "kind of control frames, for union ControlNets; repeatable",
        int,
        _CONTROL,
        repeatable=True,
    )
    guess_mode: bool = flag(
        ClipSettings.guess_mode, "let the ControlNet see the conditional half alone", bool, _CONTROL
    )
    control_preprocess: str = flag(
        "auto",
        "auto makes edges or depth of the clip, none takes its frames as they are",
        str,
        _CONTROL,
        choices=PREPROCESSING,
    )
    canny_low_threshold: float = flag(
        LOW_THRESHOLD, "gradient from which a pixel joins an edge", float, _CONTROL
    )
    canny_high_threshold: float = flag(
        HIGH_THRESHOLD, "gradient from which a pixel is an edge", float, _CONTROL
    )
    depth_checkpoint: str = flag(
        DEPTH_CHECKPOINT,
        "depth-estimation model, a folder or Hub id",
        str,
        _CONTROL,
        source=True,
    )
    save_control: str | None = flag(
        None,
        "also write the control frames, as --output writes",
        str,
        _CONTROL,
        about_this_run=True,
        local=True,
    )

    mesh: str = flag(
        "auto",
        "devices along each of the axes data, fsdp, frames and tensor, such as data=2,frames=4; "
        "-1 takes those that are left",
        str,
        _HOSTS,
        about_this_run=True,
    )
    coordinator_address: str | None = machine_flags.coordinator_address(_HOSTS)
    process_count: int | None = machine_flags.process_count(_HOSTS)
    process_index: int | None = machine_flags.process_index(_HOSTS)

    trust_config: bool = flag(
        False,
        "read and fetch what a picture given to --config names, without its being repeated",
        bool,
        _OUTPUT,
        about_this_run=True,
    )
    output: str | None = flag(
        None,
        "file to write: .gif, .mp4, .webp, a folder for PNGs, or .jpg/.png for one frame "
        "(default: a name made of prompt and seed in outputs/)",
        str,
        _OUTPUT,
        about_this_run=True,
        local=True,
    )
    overwrite: bool = flag(
        False, "replace an output that exists", bool, _OUTPUT, about_this_run=True
    )
    json: bool = flag(
        False, "end standard output with one line of JSON", bool, _OUTPUT, about_this_run=True
    )

    def stored(self) -> dict[str, Any]:
        """The settings that decide the picture, for the result's metadata."""
        return {
            name: getattr(self, name)
            for name, each in flags_of(InferSettings).items()
            if not each.about_this_run and getattr(self, name) not in (None, ())
        }

    @property
    def model_files(self) -> tuple[str, ...]:
        """Paths and Hub ids of what makes up the UNet, strengths left out; LoRAs come last."""
        models = (self.pretrained_path, self.base, self.spatial_unet_base)
        loras = (argument.rpartition(":")[0] or argument for argument in self.lora)
        return (*(model for model in models if model is not None), *loras)

    def sized(self) -> "InferSettings":
        """These settings with `aspect_ratio` turned into width and height.

        Raises:
            UsageError: a size is given as well, or the ratio is unknown.
        """
        if self.aspect_ratio is None:
            return self
        if self.width is not None or self.height is not None:
            raise UsageError("--aspect_ratio sets width and height; give one or the other.")
        width, height = size_of_aspect_ratio(
            self.aspect_ratio, otherwise="for any other size give --width and --height"
        )
        return dataclasses.replace(self, width=width, height=height, aspect_ratio=None)
