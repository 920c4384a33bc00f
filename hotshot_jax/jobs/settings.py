"""Three kinds of settings: which model, what to make, how to run.

The defaults of a job live here, and the command line takes its own from here. Those of
`HotshotXLPipeline` are what diffusers' users expect of a pipeline, and are others.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotshot_jax.conditioning.key_frames import Number
    from hotshot_jax.parallel.mesh import MeshConfig
    from hotshot_jax.sampling.request import MotionScale
    from hotshot_jax.sampling.step_plan import CacheInterval, GuidanceInterval
    from hotshot_jax.sampling.windows import ContextConfig


@dataclass(frozen=True)
class ModelSettings:
    """Which model; see `HotshotXLPipeline.from_pretrained`.

    Attributes:
        path: a folder, a file or a Hub id; None for the small built-in model.
        variant: which files to prefer where there are several.
        spatial_unet_base: another SDXL for the spatial layers.
        base: another SDXL for spatial layers, text encoders and VAE.
        temporal: temporal layers from elsewhere.
        vae: another VAE.
        loras: paths or Hub ids of LoRAs, and their strengths.
        lora_allow_partial: whether keys of a LoRA that fit nowhere are left out.
        embeddings: paths or Hub ids of textual inversions, and their words.
        controlnets: paths or Hub ids of ControlNets.
        control_types: kind of the control frames that each will be given; None if not yet known.
        precision: "f16", "f32" or "bf16".
        vae_precision: "f32", "bf16x3" or "bf16"; None as suits the device and the VAE.
        scheduler: diffusers' class name or a short one; "default" is the checkpoint's own.
        timestep_spacing: which timesteps are visited; None is what the checkpoint says.
        prediction_type: what the UNet predicts; None is likewise.
        zero_terminal_snr: whether denoising starts from pure noise; None is likewise.
    """

    path: str | None = None
    variant: str | None = None
    spatial_unet_base: str | None = None
    base: str | None = None
    temporal: str | None = None
    vae: str | None = None
    loras: tuple[tuple[str, float], ...] = ()
    lora_allow_partial: bool = False
    embeddings: tuple[tuple[str, str], ...] = ()
    controlnets: tuple[str, ...] = ()
    control_types: tuple[int | None, ...] | None = None
    precision: str = "f16"
    vae_precision: str | None = None
    scheduler: str = "EulerAncestralDiscreteScheduler"
    timestep_spacing: str | None = None
    prediction_type: str | None = None
    zero_terminal_snr: bool | None = None

    @property
    def scheduler_options(self) -> dict[str, Any]:
        """What replaces values of the checkpoint's scheduler configuration."""
        # Only trailing timesteps begin where the noise is pure.
        spacing = self.timestep_spacing or ("trailing" if self.zero_terminal_snr else None)
        options = {
            "prediction_type": self.prediction_type,
            "rescale_betas_zero_snr": self.zero_terminal_snr,
            "timestep_spacing": spacing,
        }
        return {name: value for name, value in options.items() if value is not None}


@dataclass(frozen=True)
class ClipSettings:
    """What to make; see `HotshotXLPipeline.__call__`.

    Attributes:
        prompt: what to show.
        prompt_2: for the second text encoder; None is the same.
        negative_prompt: what to move away from.
        negative_prompt_2: for the second text encoder; None is the same.
        width: pixels; None is the model's native size.
        height: pixels, likewise.
        original_size: width and height that SDXL is told.
        target_size: width and height that SDXL is told.
        video_length: frames.
        loop: whether the last frame is followed by the first.
        ping_pong: whether the clip is played forwards, then backwards.
        prompt_at: frames, and prompts that hold there; `prompt` holds at frame 0 unless it is empty
            or one of these does.
        negative_prompt_at: likewise for `negative_prompt`.
        context_length: frames of a window; None as `ContextConfig.of_clip` says, like the next two.
        context_overlap: frames that neighbouring windows share.
        context_schedule: where windows lie.
        context_stride: levels of the uniform schedules.
        context_fuse: how frames that are in several windows are weighted.
        initial_noise: "independent" or "freenoise".
        motion_scale: factor of what the temporal transformers add.
        num_videos: videos of this prompt, which share the seed.
        seed: 0 to 2**64 - 1.
        noise: whose random numbers, "torch" or "jax".
        steps: of denoising.
        guidance_scale: of classifier-free guidance; up to 1 means none.
        guidance_rescale: contrast correction of strong guidance, 0 to 1.
        guidance_interval: fractions of the steps between which there is guidance.
        cache_interval: every how many steps the whole UNet is run, or in which.
        eta: noise of DDIM, 0 to 1.
        clip_skip: text encoder layers left out before the last but one.
        prompt_weights: whether brackets and BREAK in prompts have their meaning.
        long_prompts: whether what exceeds 75 tokens is read in further pieces.
        guess_mode: whether ControlNets see the conditional half alone.
    """

    prompt: str
    prompt_2: str | None = None
    negative_prompt: str | None = "blurry"
    negative_prompt_2: str | None = None
    width: int | None = None
    height: int | None = None
    original_size: tuple[int, int] = (1920, 1080)
    target_size: tuple[int, int] = (512, 512)
    video_length: int = 8
    loop: bool = False
    ping_pong: bool = False
    prompt_at: tuple[tuple[int, str], ...] = ()
    negative_prompt_at: tuple[tuple[int, str], ...] = ()
    context_length: int | None = None
    context_overlap: int | None = None
    context_schedule: str | None = None
    context_stride: int = 1
    context_fuse: str = "pyramid"
    initial_noise: str = "independent"
    motion_scale: "MotionScale" = 1.0
    num_videos: int = 1
    seed: int = 455
    noise: str = "torch"
    steps: int = 30
    guidance_scale: "Number" = 5.0
    guidance_rescale: float = 0.0
    guidance_interval: "GuidanceInterval" = (0.0, 1.0)
    cache_interval: "CacheInterval" = 1
    eta: float = 0.0
    clip_skip: int = 0
    prompt_weights: bool = True
    long_prompts: bool = False
    guess_mode: bool = False

    def context(self, positions: int) -> "ContextConfig | None":
        """How the clip is divided into windows; None for not at all.

        Args:
            positions: frames that the temporal layers know.

        Raises:
            UsageError: the settings contradict each other.
        """
        from hotshot_jax.sampling.windows import ContextConfig

        return ContextConfig.of_clip(
            self.video_length,
            positions,
            loop=self.loop,
            length=self.context_length,
            overlap=self.context_overlap,
            schedule=self.context_schedule,
            stride=self.context_stride,
            fuse=self.context_fuse,
        )

    @property
    def prompts(self) -> "str | dict[int, str]":
        """The prompt, or prompts at key frames."""
        return _at_keys(self.prompt, self.prompt_at)

    @property
    def negative_prompts(self) -> "str | dict[int, str] | None":
        """The negative prompt, or negative prompts at key frames."""
        return _at_keys(self.negative_prompt, self.negative_prompt_at)

    def as_part(self, before: int, behind: int) -> "ClipSettings":
        """The settings of a longer run of which this clip is a part.

        What holds at single frames holds where these lie in the run. Neither it nor the clip is
        played differently than made: that is for whoever takes the clip out of it.

        Args:
            before: frames of the run before those of the clip.
            behind: frames of the run behind them.
        """
        from hotshot_jax.conditioning.key_frames import shifted_keys
        from hotshot_jax.sampling.request import scales_by_block

        scales = scales_by_block(self.motion_scale)
        changes: dict[str, Any] = {
            "video_length": before + self.video_length + behind,
            "loop": False,
            "ping_pong": False,
            "motion_scale": {name: shifted_keys(each, before) for name, each in scales.items()},
            "guidance_scale": shifted_keys(self.guidance_scale, before),
        }
        for text, at_frames in (
            ("prompt", "prompt_at"),
            ("negative_prompt", "negative_prompt_at"),
        ):
            if getattr(self, at_frames):
                keys = _at_keys(getattr(self, text), getattr(self, at_frames))
                changes[text] = ""
                changes[at_frames] = tuple((frame + before, said) for frame, said in keys.items())
        return replace(self, **changes)

    @property
    def texts(self) -> list[str]:
        """All that the text encoders will read."""
        alone = (self.prompt, self.prompt_2, self.negative_prompt, self.negative_prompt_2)
        keyed = [text for _, text in (*self.prompt_at, *self.negative_prompt_at)]
        return [text for text in (*alone, *keyed) if text]

    @property
    def read_in_pieces(self) -> bool:
        """Whether a text may be read in several pieces, to which others would be padded."""
        breaks = any("BREAK" in text for text in self.texts)
        return self.long_prompts or (self.prompt_weights and breaks)


def _at_keys(prompt: Any, keys: tuple[tuple[int, str], ...]) -> Any:
    return ({0: prompt} if prompt else {}) | dict(keys) if keys else prompt


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here changes what is made, up to rounding.

    Attributes:
        mesh: the devices; None for the default one.
        low_vram_mode: whether only the model at work is kept in device memory.
        compile_effort: one of `compile_effort.EFFORTS`; None is the platform's default.
        decode_frames: frames that the VAE decodes at once, on each device.
        context_batch: windows of a long clip that are made at once; None for one on each device
            along the mesh's axis `data`.
    """

    mesh: "MeshConfig | None" = None
    low_vram_mode: bool = False
    compile_effort: str | None = None
    decode_frames: int = 4
    context_batch: int | None = None
