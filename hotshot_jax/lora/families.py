"""Recognising files that cannot be merged here: other models, other methods."""

from __future__ import annotations

import re
from collections.abc import Mapping

from hotshot_jax.convert.formats.model_family import LORA, refuse_other_kinds
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json

# What a key contains -> the model it was trained for.
_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"lora_unet_(double|single)_blocks_|(^|\.)(double|single)_blocks\.", "Flux"),
    (r"single_transformer_blocks", "Flux"),
    (r"lora_unet_joint_blocks_|(^|\.)joint_blocks\.", "Stable Diffusion 3"),
    (r"^transformer\.transformer_blocks\.|^lora_te3_", "Stable Diffusion 3 or another transformer"),
    (r"^lora_transformer_|^transformer\.|^lora_prior_", "another model than SDXL (a transformer)"),
    (r"^lora_te_", "Stable Diffusion 1.x or 2.x"),
    (r"motion_modules?\.", "AnimateDiff"),
)
# Width of the text that a LoRA's cross-attention takes -> its model.
_TEXT_WIDTHS = {
    768: "Stable Diffusion 1.x",
    1024: "Stable Diffusion 2.x",
    1280: "the SDXL refiner",
    2048: "full-size SDXL",
}
_TEXT_KEY = re.compile(r"attn2[._](processor\.)?to_[kv].*(down|lora_A).*\.weight|attn2.*hada_w1_b")
_HEADERS = ("ss_base_model_version", "modelspec.architecture")
_HEADER_FAMILIES: tuple[tuple[str, str], ...] = (
    (r"^sd_v1|^sd_1|stable-diffusion-v1", "Stable Diffusion 1.x"),
    (r"^sd_v2|^sd_2|stable-diffusion-v2", "Stable Diffusion 2.x"),
    (r"refiner", "the SDXL refiner"),
    (r"^sd3|stable-diffusion-(v?3|3)", "Stable Diffusion 3"),
    (r"flux", "Flux"),
)

# What a key ends in -> the method, by its usual name.
_METHODS: tuple[tuple[str, str], ...] = (
    (r"\.(oft_blocks|oft_diag|oft_R|oft_r)(\..*)?$", "OFT or BOFT"),
    (r"\.boft_(R|s)(\..*)?$", "BOFT"),
    (r"\.rescale$", "OFT or BOFT"),
    (r"\.(a1|a2|b1|b2)\.weight$", "GLoRA"),
    (r"\.on_input$|\.ia3_l(\..*)?$", "IA3"),
    (r"\.vera_lambda_[bd](\..*)?$|vera_A", "VeRA"),
    (r"\.lora_embedding_[AB](\..*)?$", "LoRA of an embedding table"),
    (r"\.lora_diag(\..*)?$", "KaSA"),
    (r"\.lora_E(\..*)?$|\.ranknum(\..*)?$", "AdaLoRA"),
    (
        r"[._](q_layer|p_layer|lambda_layer)(\.|$)|\.base_(p|q|lambda)(\.|$)|\.rank_mask$",
        "T-LoRA, whose strength depends on the step",
    ),
)


def refuse_other_methods(source: TensorSource) -> None:
    """Raises where a file uses a method that is not merged, or is no LoRA at all.

    Raises:
        HotshotError: names the method, or what the file is.
    """
    refuse_other_kinds(source, LORA)
    for pattern, method in _METHODS:
        if _any_key(source, pattern):
            raise HotshotError(
                f"{source.path} uses {method}, which is not supported (LoRA, LoCon, LoHa, LoKr, "
                "DoRA and full differences are); merge it into a model with the tool that trained "
                "it."
            )


def refuse_other_families(source: TensorSource, text_width: int | None) -> None:
    """Raises where a file was trained for another model.

    Args:
        source: the file.
        text_width: width of the text embeddings that the UNet here takes.

    Raises:
        HotshotError: names the model.
    """
    by_keys = (name for pattern, name in _FAMILIES if _any_key(source, pattern))
    family = next(by_keys, None) or _by_width(source, text_width)
    if family is not None:
        raise other_family(source, family)


def other_family(source: TensorSource, family: str) -> HotshotError:
    """The error for a file that was trained for another model."""
    return HotshotError(f"{source.path} was trained for {family}; Hotshot-XL takes LoRAs for SDXL.")


def stated_algorithm(metadata: Mapping[str, str]) -> str | None:
    """The method that LyCORIS wrote into the header; None where there is none."""
    try:
        arguments = parse_json(metadata.get("ss_network_args", "null"))
    except ParseError:
        return None
    algorithm = arguments.get("algo") if isinstance(arguments, dict) else None
    return algorithm if isinstance(algorithm, str) else None


def _any_key(source: TensorSource, pattern: str) -> bool:
    return any(re.search(pattern, key) for key in source)


def _by_width(source: TensorSource, text_width: int | None) -> str | None:
    for key, tensor in source.items():
        if _TEXT_KEY.search(key) and len(tensor.shape) >= 2:
            width = tensor.shape[1]
            if width != text_width and width in _TEXT_WIDTHS:
                return _TEXT_WIDTHS[width]
    return None


def header_family(metadata: Mapping[str, str]) -> str | None:
    """Another model that the header names; None where it is SDXL's or says nothing.

    Headers are copied along when files are converted or merged, so keys and shapes count for more.
    """
    for header in _HEADERS:
        for pattern, family in _HEADER_FAMILIES:
            if re.search(pattern, metadata.get(header, "").lower()):
                return family
    return "Stable Diffusion 2.x" if metadata.get("ss_v2", "").lower() == "true" else None
