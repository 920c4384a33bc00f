"""Telling the files that look like an SDXL model from those that are one."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from hotshot_jax.convert.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError


def _any(test: Callable[[str], bool]) -> Callable[[Iterable[str]], bool]:
    return lambda names: any(test(name) for name in names)


def _starts(*prefixes: str) -> Callable[[Iterable[str]], bool]:
    bare = tuple(prefix.removeprefix("model.diffusion_model.") for prefix in prefixes)
    return _any(lambda name: name.removeprefix("model.diffusion_model.").startswith(bare))


def _contains(*parts: str) -> Callable[[Iterable[str]], bool]:
    return _any(lambda name: any(part in name for part in parts))


# In the order in which they are tried: a LoRA or ControlNet for Flux is first of all that.
_OTHER_FILES: tuple[tuple[Callable[[Iterable[str]], bool], str], ...] = (
    (
        _contains(
            ".lora_down.", ".lora_up.", ".lora_A.", ".lora_B.", ".hada_w1", ".lokr_w", "_lora."
        ),
        "a LoRA, not a model; give it with --lora",
    ),
    (
        _contains("controlnet_cond_embedding", "input_hint_block", "controlnet_down_blocks"),
        "a ControlNet, not a model",
    ),
    (_starts("control_model."), "a ControlNet, not a model"),
    (_starts("lora_controlnet"), "a Control-LoRA, which is not supported"),
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


def refuse_other_files(source: TensorSource) -> None:
    """Raises where a file is recognised as something else than an SDXL model, UNet or VAE.

    Raises:
        HotshotError: says what the file is, and which flag takes it, if one does.
    """
    names = source.names
    for test, what in _OTHER_FILES:
        if test(names):
            raise HotshotError(f"{source.path} is {what}.")
    temporal = (".temporal_attentions.", ".motion_modules.")
    if all(any(part in name for part in temporal) for name in names):
        raise HotshotError(f"{source.path} holds temporal layers alone; give it with --temporal.")
    if {"clip_l", "clip_g"} & set(names) or "emb_params" in names:
        raise HotshotError(f"{source.path} is a textual inversion; give it with --embedding.")


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
