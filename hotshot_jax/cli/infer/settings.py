"""What a run of `infer.py` is asked to do."""

import dataclasses
from typing import Any

from hotshot_jax.choices import (
    CONTROL_TYPES,
    DEPTH_CHECKPOINT,
    HIGH_THRESHOLD,
    LOW_THRESHOLD,
    PRECISIONS,
    PREPROCESSING,
    VAE_PRECISIONS,
)
from hotshot_jax.cli.by_frame import Number, number_by_frame
from hotshot_jax.cli.flags import DEVICES, flag, flags_of, host_flag
from hotshot_jax.cli.infer.clip_flags import ClipFlags
from hotshot_jax.cli.infer.presets import preset_values
from hotshot_jax.compile_effort import EFFORTS
from hotshot_jax.errors import UsageError
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings, RunSettings
from hotshot_jax.media.aspect_ratios import size_of_aspect_ratio

SIZES = ("width", "height")
# A clip of up to so many frames takes a second; each frame of a longer one takes so long.
_LONGEST_SECOND = 24
_LONG_FRAME_MS = 125

_MODEL, _OUTPUT = "model", "output"
_CONTROL = "composition (ControlNet)"
_HOSTS = "several devices and hosts"


@dataclasses.dataclass(frozen=True)
class InferSettings(ClipFlags):
    """The settings of one run; each field is a flag of the same name."""

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
    vae_precision: str | None = flag(
        None,
        "products of the VAE: float32, three passes of bfloat16 on TPUs, or all in bfloat16 "
        "(default: bf16x3 on TPUs, else f32; bf16 for a VAE made for half precision, not on CPUs)",
        str,
        _MODEL,
        choices=VAE_PRECISIONS,
    )
    low_vram_mode: bool = flag(
        RunSettings.low_vram_mode,
        "keep only the model at work in device memory",
        bool,
        _MODEL,
        about_this_run=True,
    )
    device: str = flag(
        "auto", "device to run on", str, _MODEL, choices=DEVICES, about_this_run=True
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
    controlnet_conditioning_scale: tuple[Number, ...] = flag(
        (),
        "strength (default: 0.7; 1 for the built-in model's own), by frame as 0:1,16:0.5; "
        "repeatable",
        number_by_frame,
        _CONTROL,
        repeatable=True,
        metavar="NUMBER",
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
    coordinator_address: str | None = host_flag("coordinator_address", _HOSTS)
    process_count: int | None = host_flag("process_count", _HOSTS)
    process_index: int | None = host_flag("process_index", _HOSTS)

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

    def __post_init__(self) -> None:
        if self.video_duration is None:
            long = self.video_length > _LONGEST_SECOND
            duration = _LONG_FRAME_MS * self.video_length if long else 1000
            object.__setattr__(self, "video_duration", duration)

    def stored(self) -> dict[str, Any]:
        """The settings that decide the picture, for the result's metadata."""
        defaults = InferSettings()
        preset: dict[str, Any] = {}
        if self.preset is not None:
            preset = preset_values(self.preset, self.model_files)

        def changed(name: str, value: Any) -> bool:
            default = getattr(defaults, name)
            # Or a preset that is read again would put its own value there.
            return value != default or preset.get(name, default) != default

        return {
            name: value
            for name, each in flags_of(InferSettings).items()
            if not each.about_this_run
            and (value := getattr(self, name)) not in (None, ())
            and (changed(name, value) or not each.stored_if_changed)
        }

    @property
    def least_frames(self) -> int:
        """How many frames the result has; with a clip that is extended, at least."""
        return self.video_length + (self.extend is not None)

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
