"""SDXL in one `.safetensors` file, as sites publish it: every component out of it, lazily.

Also files that hold a part: a UNet alone (original or diffusers' names), a VAE alone.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from hotshot_jax.convert.builders import model_shapes
from hotshot_jax.convert.formats.diffusers_folder import Component
from hotshot_jax.convert.formats.ldm_names import (
    PREFIXES,
    TABLES,
    TEXT_ENCODER,
    TEXT_ENCODER_2,
    UNET,
    VAE,
    from_single_file,
)
from hotshot_jax.convert.formats.model_family import refuse_other_files, refuse_other_unets
from hotshot_jax.convert.formats.single_file_config import (
    MARKERS,
    scheduler_config,
    text_encoder_2_config,
    text_encoder_config,
    unet_config,
    vae_config,
)
from hotshot_jax.convert.tensors.rules import current_attention_name, is_spare, is_temporal
from hotshot_jax.convert.tensors.tensor_source import TensorSource, first_names
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError

_OTHER_VAE_PREFIX = "vae."
# Layers by which a model that is alone in a file is known, in original and diffusers' names.
_FIRST_LAYERS = frozenset({"input_blocks.0.0.weight", "time_embedding.linear_1.weight"})
_VAE_LAYERS = frozenset(
    {"decoder.up.0.block.0.conv1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"}
)
_DIFFUSERS_LAYERS = frozenset(
    {"time_embedding.linear_1.weight", "decoder.up_blocks.0.resnets.0.conv1.weight"}
)
# Current transformers leave this level out of the names.
_LEVEL = "text_model."
_BELOW = ("embeddings.", "encoder.", "final_layer_norm.")
# The projection as a linear layer's weight, which is the transpose of OpenCLIP's parameter; the
# second spelling is an accident of one conversion script that got around.
_LINEAR_PROJECTIONS = ("text_projection.weight", "text_projection.weight.weight")
_LISTED = 5


@dataclasses.dataclass(frozen=True)
class SingleFile:
    """What a file holds.

    Attributes:
        components: by "unet", "text_encoder", "text_encoder_2", "vae"; only those in the file.
        scheduler: configuration of the scheduler, in diffusers' words.
        notes: what the user should be told, one sentence each.
    """

    source: TensorSource
    components: Mapping[str, Component]
    scheduler: Mapping[str, Any]
    notes: tuple[str, ...]

    def component(self, name: str) -> Component:
        """The component called `name`.

        Raises:
            HotshotError: the file does not hold it.
        """
        if name in self.components:
            return self.components[name]
        held = ", ".join(_words(each) for each in self.components)
        hint = (
            "give it with `vae`"
            if set(self.components) == {VAE}
            else "give it with `spatial_unet_base`, or a folder or full file with `base`"
        )
        raise HotshotError(f"{self.source.path} holds no {_words(name)}, only {held}; {hint}.")


def open_single_file(
    source: TensorSource, configs: Mapping[str, Mapping[str, Any]] | None = None
) -> SingleFile:
    """Opens a file in the original layout, or one that holds a UNet or a VAE alone.

    Args:
        source: the file's tensors (`tensor_source.open_file`).
        configs: for each component, configuration values that replace the derived ones. Shapes do
            not tell the number of heads: without it heads are 64 channels wide, as in every SDXL.

    Raises:
        HotshotError: the file is something else (says what), is quantised, has tensors that belong
            to no component's model, or a configuration cannot be derived.
    """
    refuse_other_files(source)
    stored = _split(source)
    for part in stored.values():
        check_weight_types(part)
    if UNET in stored:
        refuse_other_unets(stored[UNET])

    components = {
        name: _component(
            name, part, {**_derive(name, part, stored), **(configs or {}).get(name, {})}
        )
        for name, part in stored.items()
    }
    scheduler, notes = scheduler_config(source)
    return SingleFile(source, components, scheduler, (*notes, *_leftovers(source, stored)))


def _split(source: TensorSource) -> dict[str, TensorSource]:
    """The file's components in the original names, prefixes removed."""
    parts = {name: source.below(prefix) for name, prefix in PREFIXES.items()}
    if not len(parts[VAE]):
        parts[VAE] = source.below(_OTHER_VAE_PREFIX)
    if not any(len(part) for part in parts.values()):
        # Without a prefix it is one model alone; whose, its names tell.
        parts = {UNET: source if _FIRST_LAYERS & set(source) else source.below("?")}
        parts[VAE] = source if _VAE_LAYERS & set(source) else source.below("?")
    found = {name: _to_original(name, part) for name, part in parts.items() if len(part)}
    if not found:
        raise HotshotError(
            f"{source.path} is no SDXL model: none of its {len(source)} tensors has a known name "
            f"({', '.join(source.names[:_LISTED])})."
        )
    return found


def _to_original(name: str, part: TensorSource) -> TensorSource:
    """A component in the original names, from any that are in use.

    Raises:
        HotshotError: a tensor has no place there.
    """
    if name == TEXT_ENCODER:
        return part.renamed(lambda each: f"{_LEVEL}{each}" if each.startswith(_BELOW) else each)
    if name == TEXT_ENCODER_2:
        return _with_open_clip_projection(part)
    if not _DIFFUSERS_LAYERS & set(part):
        return part
    current = part.renamed(lambda each: None if is_spare(each) else current_attention_name(each))
    try:
        keys = {each: place.key for each, place in TABLES[name](current.names).items()}
    except (KeyError, ValueError) as error:
        raise HotshotError(f"{part.path} is no SDXL model: unknown tensor {error}.") from error
    return current.renamed(keys.get)


def _with_open_clip_projection(stored: TensorSource) -> TensorSource:
    tensors = {name: each for name, each in stored.items() if name not in _LINEAR_PROJECTIONS}
    for name in _LINEAR_PROJECTIONS:
        if name in stored and "text_projection" not in tensors:
            linear = stored[name]
            tensors["text_projection"] = linear.mapped(
                "text_projection", linear.shape[::-1], np.transpose
            )
    return TensorSource(tensors.values(), stored.path, stored.metadata)


def _derive(name: str, part: TensorSource, stored: Mapping[str, TensorSource]) -> dict[str, Any]:
    try:
        if name == UNET:
            second = stored.get(TEXT_ENCODER_2)
            pooled = None if second is None else second.shape("text_projection")[1]
            return unet_config(part, pooled)
        derive = {
            TEXT_ENCODER: text_encoder_config,
            TEXT_ENCODER_2: text_encoder_2_config,
            VAE: vae_config,
        }
        return derive[name](part)
    except KeyError as error:
        raise HotshotError(
            f"{part.path}: the {_words(name)} lacks the tensor {error}; the file is "
            "incomplete or not SDXL."
        ) from error


def _component(name: str, part: TensorSource, config: Mapping[str, Any]) -> Component:
    unknown = [key for key, value in config.items() if value is None]
    if unknown:
        raise HotshotError(
            f"{part.path}: {', '.join(unknown)} of the {_words(name)} does not follow from its "
            "tensors; use a folder with a config.json."
        )
    shapes = model_shapes(name, config, where=str(part.path))
    spatial = [each for each in shapes if not is_temporal(each)]
    renamed = from_single_file(name, part, spatial)
    places = {place.key for place in TABLES[name](spatial).values()}
    extra = [key for key in part if key not in places and not is_spare(key)]
    if extra:
        raise HotshotError(
            f"{part.path}: {len(extra)} tensors of the {_words(name)} belong to no layer of "
            f"SDXL's: {first_names(extra)}."
        )
    missing = [each for each in spatial if each not in renamed]
    if missing:
        raise HotshotError(
            f"{part.path}: the {_words(name)} is incomplete, {len(missing)} tensors are missing: "
            f"{first_names(missing)}."
        )
    return Component(name, part.path, part.path, config, renamed, variant=None)


def _words(name: str) -> str:
    return "VAE" if name == VAE else "UNet" if name == UNET else name.replace("_", " ")


def _leftovers(source: TensorSource, stored: Mapping[str, TensorSource]) -> list[str]:
    """A note about tensors outside all components, by their first word."""
    if len(stored) == 1 and not any(name.startswith(tuple(PREFIXES.values())) for name in source):
        return []
    prefixes = (*PREFIXES.values(), _OTHER_VAE_PREFIX)
    counts: dict[str, int] = {}
    for name in source:
        if not name.startswith(prefixes) and name not in MARKERS:
            first = name.split(".")[0]
            counts[first] = counts.get(first, 0) + 1
    if not counts:
        return []
    listed = ", ".join(f"{first} ({count})" for first, count in counts.items())
    return [f"{source.path.name}: tensors outside the model are ignored: {listed}."]
