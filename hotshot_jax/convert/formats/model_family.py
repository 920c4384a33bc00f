"""Naming models and files that are not what was asked for, so that they get a clear answer."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from hotshot_jax.convert.tensors.rules import TEMPORAL
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError

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
        families = (
            f"a {family} model"
            for start, family in _TRANSFORMER_FAMILIES
            if pipeline.startswith(start) or transformer.startswith(start)
        )
        return next(families, f"a diffusion transformer ({transformer})")
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
        width = text_width if isinstance(text_width, int) else 0
        named = {768: "Stable Diffusion 1.5", 1024: "Stable Diffusion 2"}.get(width)
        return named or "not an SDXL model (its UNet has no size and crop conditioning)"
    return None


_LORA_PARTS = (".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1", ".lokr_w", "_lora.")
_LORA_ENDINGS = (".diff", ".diff_b", ".set_weight", ".w_norm", ".b_norm")
_CONTROLNET_PARTS = ("controlnet_cond_embedding", "input_hint_block", "controlnet_down_blocks")
_EMBEDDING_KEYS = frozenset({"clip_l", "clip_g", "emb_params", "string_to_param"})
_TEMPORAL_PARTS = (f".{TEMPORAL}.", ".motion_modules.")


def _any(test: Callable[[str], bool]) -> Callable[[Iterable[str]], bool]:
    return lambda names: any(test(name) for name in names)


def _starts(*prefixes: str) -> Callable[[Iterable[str]], bool]:
    bare = tuple(prefix.removeprefix("model.diffusion_model.") for prefix in prefixes)
    return _any(lambda name: name.removeprefix("model.diffusion_model.").startswith(bare))


def _contains(*parts: str) -> Callable[[Iterable[str]], bool]:
    return _any(lambda name: any(part in name for part in parts))


@dataclasses.dataclass(frozen=True)
class _Kind:
    """A kind of file that goes with a model.

    Attributes:
        name: what readers of the kind call it.
        test: tells it by the tensors' names.
        what: completes "FILE is ...".
    """

    name: str
    test: Callable[[Iterable[str]], bool]
    what: str


def _unsupported(test: Callable[[Iterable[str]], bool], what: str) -> _Kind:
    return _Kind("", test, f"{what}, which is not supported")


LORA, CONTROLNET, EMBEDDING, TEMPORAL_LAYERS = "lora", "controlnet", "embedding", "temporal"

# In the order in which they are tried; several hold LoRA's names beside their own.
_KINDS = (
    _unsupported(_any(lambda name: name.startswith("lllite_")), "a ControlNet-LLLite"),
    _unsupported(
        _any(lambda name: name.startswith(("pulid_ca.", "pulid_encoder."))), "a PuLID model"
    ),
    _unsupported(_any(lambda name: name.startswith("id_encoder.")), "a PhotoMaker model"),
    _unsupported(
        _any(lambda name: name.startswith(("ip_adapter.", "image_proj.")) or "to_k_ip." in name),
        "an IP-Adapter (pictures as prompts)",
    ),
    _unsupported(
        _any(lambda name: re.match(r"(adapter\.)?body\.\d+\.", name) is not None),
        "a T2I-Adapter",
    ),
    _unsupported(
        _any(lambda name: name.startswith("position_net.") or ".fuser." in name), "a GLIGEN model"
    ),
    _unsupported(_any(lambda name: name == "lora_controlnet"), "a Control-LoRA"),
    _Kind(
        LORA,
        _any(
            lambda name: any(part in name for part in _LORA_PARTS) or name.endswith(_LORA_ENDINGS)
        ),
        "a LoRA; give it with `loras`",
    ),
    _Kind(
        CONTROLNET,
        _any(
            lambda name: (
                any(part in name for part in _CONTROLNET_PARTS) or name.startswith("control_model.")
            )
        ),
        "a ControlNet; give it with `controlnets`",
    ),
    _Kind(
        EMBEDDING,
        lambda names: not _EMBEDDING_KEYS.isdisjoint(names),
        "a textual inversion; give it with `embeddings`",
    ),
    _Kind(
        TEMPORAL_LAYERS,
        lambda names: all(any(part in name for part in _TEMPORAL_PARTS) for name in names),
        "a file of temporal layers alone; give it with `temporal`",
    ),
)

# What is left once none of these fits: other models.
_OTHER_MODELS: tuple[tuple[Callable[[Iterable[str]], bool], str], ...] = (
    (_contains("single_stream_modulation"), "a Flux.2 model; only SDXL models can be animated"),
    (_starts("double_blocks."), "a Flux model; only SDXL models can be animated"),
    (_contains("single_transformer_blocks."), "a Flux model; only SDXL models can be animated"),
    (_starts("joint_blocks."), "a Stable Diffusion 3 model; only SDXL models can be animated"),
    (
        _contains("conditioner.embedders.0.model."),
        "the SDXL refiner; Hotshot-XL needs an SDXL base model",
    ),
    (
        _contains("cond_stage_model.transformer."),
        "a Stable Diffusion 1.x model; only SDXL models can be animated",
    ),
    (
        _contains("cond_stage_model.model."),
        "a Stable Diffusion 2.x model; only SDXL models can be animated",
    ),
    (_contains("edm_mean", "edm_std"), "Playground v2.5, whose latents are scaled differently"),
)


def refuse_other_kinds(source: TensorSource, wanted: str) -> None:
    """Raises where a file that was given as one kind is recognised as another.

    Args:
        source: the file.
        wanted: what it was given as: `LORA`, `CONTROLNET`, `EMBEDDING`, `TEMPORAL_LAYERS`, or ""
            for a model.

    Raises:
        HotshotError: says what the file is, and which flag takes it, if one does.
    """
    kind = next((kind for kind in _KINDS if len(source) and kind.test(source.names)), None)
    if kind is not None and (not kind.name or kind.name != wanted):
        raise HotshotError(f"{source.path} is {kind.what}.")


def refuse_other_files(source: TensorSource) -> None:
    """Raises where a file is recognised as something else than an SDXL model, UNet or VAE.

    Raises:
        HotshotError: says what the file is, and which flag takes it, if one does.
    """
    refuse_other_kinds(source, "")
    for test, what in _OTHER_MODELS:
        if test(source.names):
            raise HotshotError(f"{source.path} is {what}.")


def refuse_other_unets(source: TensorSource) -> None:
    """Raises where the UNet is not that of an SDXL base model.

    Args:
        source: the UNet's tensors in the original names, prefix removed.

    Raises:
        HotshotError: it has no first layer, is for inpainting or editing, is the refiner's, or
            one of Stable Diffusion 1.x or 2.x.
    """
    if "input_blocks.0.0.weight" not in source:
        raise HotshotError(
            f"{source.path}: the UNet has no tensor input_blocks.0.0.weight; the file is "
            "incomplete or not SDXL."
        )
    conv_in = source.shape("input_blocks.0.0.weight")
    if conv_in[1] == 9:
        raise HotshotError(
            f"{source.path} is an inpainting model (9 input channels); use its base model."
        )
    if conv_in[1] == 8:
        raise HotshotError(
            f"{source.path} is an instruct-pix2pix model (8 input channels); use its base model."
        )
    if conv_in[1] != 4:
        raise HotshotError(f"{source.path}: the UNet takes {conv_in[1]} channels; SDXL's takes 4.")
    if conv_in[0] == 384:
        raise HotshotError(
            f"{source.path} is the SDXL refiner; Hotshot-XL needs an SDXL base model."
        )
    if not any(name.startswith("label_emb.") for name in source) or any(
        name.endswith(".proj_in.weight") and len(source.shape(name)) == 4 for name in source
    ):
        raise HotshotError(
            f"{source.path}: a UNet of Stable Diffusion 1.x or 2.x; only SDXL can be animated."
        )
