"""Three kinds of settings: which model, what to make, how to run.

The defaults of a job live here, and the command line takes its own from here. Those of
`HotshotXLPipeline` are what diffusers' users expect of a pipeline, and are others.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hotshot_jax.parallel.mesh import MeshConfig


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
        num_videos: videos of this prompt, which share the seed.
        seed: 0 to 2**64 - 1.
        noise: whose random numbers, "torch" or "jax".
        steps: of denoising.
        guidance_scale: of classifier-free guidance; up to 1 means none.
        guidance_rescale: contrast correction of strong guidance, 0 to 1.
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
    num_videos: int = 1
    seed: int = 455
    noise: str = "torch"
    steps: int = 30
    guidance_scale: float = 5.0
    guidance_rescale: float = 0.0
    eta: float = 0.0
    clip_skip: int = 0
    prompt_weights: bool = True
    long_prompts: bool = False
    guess_mode: bool = False

    @property
    def read_in_pieces(self) -> bool:
        """Whether a text may be read in several pieces, to which others would be padded."""
        texts = (self.prompt, self.prompt_2, self.negative_prompt, self.negative_prompt_2)
        breaks = any(text and "BREAK" in text for text in texts)
        return self.long_prompts or (self.prompt_weights and breaks)


@dataclass(frozen=True)
class RunSettings:
    """How to run; nothing here changes what is made, up to rounding.

    Attributes:
        mesh: the devices; None for the default one.
        low_vram_mode: whether only the model at work is kept in device memory.
        compile_effort: one of `compile_effort.EFFORTS`; None is the platform's default.
        decode_frames: frames that the VAE decodes at once, on each device.
    """

    mesh: "MeshConfig | None" = None
    low_vram_mode: bool = False
    compile_effort: str | None = None
    decode_frames: int = 4
