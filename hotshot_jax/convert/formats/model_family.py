"""Naming models that are not Hotshot-XL, so that the wrong folder gets a clear answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_CLASSES = {
    "unet": ("UNet3DConditionModel", "UNet2DConditionModel"),
    "vae": ("AutoencoderKL",),
    "text_encoder": ("CLIPTextModel",),
    "text_encoder_2": ("CLIPTextModelWithProjection",),
}

# Start of a pipeline's or transformer's class name -> what people call the model.
_TRANSFORMER_FAMILIES = (
    ("Flux", "Flux"),
    ("StableDiffusion3", "Stable Diffusion 3"),
    ("SD3", "Stable Diffusion 3"),
    ("PixArt", "PixArt"),
    ("Hunyuan", "Hunyuan"),
    ("Wan", "Wan"),
    ("LTX", "LTX-Video"),
    ("CogVideo", "CogVideoX"),
    ("AuraFlow", "AuraFlow"),
    ("Qwen", "Qwen-Image"),
    ("Sana", "Sana"),
)


def component_class(index: Mapping[str, Any], name: str) -> str | None:
    """The class that ``model_index.json`` gives a component, without its library.

    Args:
        index: the content of ``model_index.json``. An entry is ``[library, class]``, where the
            library of Hotshot-XL's UNet is spelled ``hotshot_xl`` or ``hotshot_xl.models.unet``.
        name: the component, for example ``unet``.

    Returns:
        The class name; None for a component that is absent or null.
    """
    entry = index.get(name)
    if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], str):
        return entry[1]
    return None


def is_component_entry(value: Any) -> bool:
    """Whether a value of ``model_index.json`` is a component, not a setting of the pipeline."""
    return isinstance(value, list) and len(value) == 2


def foreign_pipeline(index: Mapping[str, Any]) -> str | None:
    """Name the model that ``model_index.json`` describes, where it is not built like SDXL.

    Args:
        index: the content of ``model_index.json``.

    Returns:
        What the model is ("a Flux model"); None where it may be SDXL.
    """
    pipeline = str(index.get("_class_name", ""))
    transformer = component_class(index, "transformer")
    if transformer is not None:
        for start, family in _TRANSFORMER_FAMILIES:
            if pipeline.startswith(start) or transformer.startswith(start):
                return f"a {family} model"
        return f"a diffusion transformer ({transformer})"
    if pipeline == "AnimateDiffSDXLPipeline" or component_class(index, "motion_adapter"):
        return f"an AnimateDiff pipeline ({pipeline})"
    if component_class(index, "controlnet") is not None:
        return f"a ControlNet pipeline ({pipeline})"
    for name, known in _CLASSES.items():
        found = component_class(index, name)
        if found is not None and found not in known:
            return f"a {pipeline or 'pipeline'} whose {name} is {found} (expected {known[0]})"
    return None


def foreign_unet(config: Mapping[str, Any]) -> str | None:
    """Name the model that a UNet's configuration belongs to, where it is not SDXL's base.

    Args:
        config: the content of ``unet/config.json``.

    Returns:
        What the model is ("Stable Diffusion 1.5"); None where it may be SDXL.
    """
    text_width = config.get("cross_attention_dim")
    channels = config.get("block_out_channels")
    in_channels = config.get("in_channels", 4)
    if in_channels == 9:
        return "an inpainting model (its UNet takes 9 channels)"
    if in_channels == 8:
        return "an image-editing model (its UNet takes 8 channels)"
    if config.get("_class_name") == "UNetSpatioTemporalConditionModel":
        return "Stable Video Diffusion"
    if config.get("_class_name") == "UNetMotionModel":
        return "an AnimateDiff model"
    if isinstance(channels, list) and channels[:1] == [384] and text_width == 1280:
        return "the SDXL refiner (its UNet is 384 channels wide and reads one text encoder)"
    if config.get("addition_embed_type") != "text_time":
        named = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2"}.get(_integer(text_width))
        return named or "not an SDXL model (its UNet has no size and crop conditioning)"
    return None


def _integer(value: Any) -> int:
    return value if isinstance(value, int) else 0
