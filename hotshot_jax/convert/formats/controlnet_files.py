"""ControlNets from files: a diffusers folder, a single file, or a converted one.

A single file may have the original code's names (https://github.com/lllyasviel/ControlNet): the way
down and the middle are named as in a UNet (`ldm_names`); the network that embeds control frames is
`input_hint_block`, the output convolutions are `zero_convs` and `middle_block_out`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from hotshot_jax.convert.assembly import AnyComponent
from hotshot_jax.convert.builders import CONTROLNET
from hotshot_jax.convert.formats.converted import is_converted, open_converted_controlnet
from hotshot_jax.convert.formats.diffusers_folder import MODEL_INDEX, Component, open_component
from hotshot_jax.convert.formats.ldm_names import UNET_EDGES, UNET_RESNET
from hotshot_jax.convert.formats.model_family import (
    CONTROLNET as CONTROLNET_FILE,
    refuse_other_kinds,
)
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.tensors.file_content import read_json_object, refuse_pickle
from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.convert.tensors.weight_files import choose_weight_files, find_weight_files
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.controlnet.shapes import config_values

_CONTROLNETS_ALONE = ("control_model.", "input_hint_block.", "controlnet_cond_embedding.")


def open_controlnet(path: str, *, variant: str | None = None) -> AnyComponent:
    """Opens an SDXL ControlNet, without reading its weights.

    Args:
        path: a folder in the diffusers layout or converted, a single .safetensors file in
            diffusers' or the original names, or a Hub id.
        variant: which weight files to prefer where there are several.

    Raises:
        UsageError: there is nothing.
        HotshotError: it is damaged, a pickle, or no SDXL ControlNet.
    """
    found = resolve(path, variant=variant, select=partial(_controlnet_files, variant=variant))
    if found.is_file():
        return _from_file(found)
    if is_converted(found):
        return open_converted_controlnet(found)
    return open_component(found, CONTROLNET, variant)


def is_controlnet(path: str) -> bool:
    """Whether a local path is a ControlNet's: its folder in either form, or a .safetensors file.

    Raises:
        HotshotError: a file or its folder's configuration is damaged.
    """
    local = Path(path)
    if local.is_file():
        return local.suffix == ".safetensors" and any(
            name.startswith(_CONTROLNETS_ALONE) for name in open_file(local)
        )
    config = local / "config.json"
    if (local / MODEL_INDEX).exists() or not config.is_file():
        return False
    return is_converted(local) or "ControlNet" in str(read_json_object(config).get("_class_name"))


def _from_file(file: Path) -> Component:
    refuse_pickle(file)
    stored = open_file(file)
    refuse_other_kinds(stored, CONTROLNET_FILE)
    tensors = with_diffusers_names(stored)
    check_weight_types(tensors)
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    return Component(
        CONTROLNET, file, file, config_values(shapes, str(file)), tensors, variant=None
    )


def _controlnet_files(names: Sequence[str], variant: str | None) -> list[str]:
    top = [name for name in names if "/" not in name]
    weights = choose_weight_files(find_weight_files(top), variant)
    if "config.json" not in top or weights is None:
        raise HotshotError("The repository holds no ControlNet in the diffusers layout.")
    return ["config.json", *weights.names]


_PREFIX = "control_model."
_HINT = "input_hint_block."
_EDGES: Mapping[str, str] = {original: name for name, original in UNET_EDGES.items()}
_RESNET: Mapping[str, str] = {original: name for name, original in UNET_RESNET.items()}


def with_diffusers_names(source: TensorSource) -> TensorSource:
    """A ControlNet's tensors under diffusers' names, whichever of the two spellings they have.

    Names that have no counterpart stay as they are.
    """
    if any(name.startswith(_PREFIX) for name in source):
        source = source.below(_PREFIX)
    if not any(name.startswith(_HINT) for name in source):
        return source
    layers = _layers(source)
    last = max(int(name.split(".")[1]) for name in source if name.startswith(_HINT))
    return source.renamed(lambda name: _diffusers_name(name, layers, last) or name)


def _layers(names: Collection[str]) -> int:
    """The number of resnets in a level: as many as come before the first downsampler."""
    blocks = {
        int(found[1]) for name in names if (found := re.match(r"input_blocks\.(\d+)\.", name))
    }
    samplers = {index for index in blocks if f"input_blocks.{index}.0.op.weight" in names}
    return min(samplers, default=max(blocks, default=0) + 1) - 1


def _diffusers_name(name: str, layers: int, last: int) -> str | None:
    module, _, leaf = name.rpartition(".")
    if module in _EDGES:
        return f"{_EDGES[module]}.{leaf}"
    parts = name.split(".")
    if parts[0] == "input_blocks" and len(parts) > 3 and parts[1].isdecimal():
        level, layer = divmod(int(parts[1]) - 1, layers + 1)
        return _in_block(f"down_blocks.{level}", layer, parts[2:])
    match parts:
        case ["middle_block", "0" | "2" as index, *rest]:
            return _in_block("mid_block", int(index) // 2, ["0", *rest])
        case ["middle_block", "1", *rest]:
            return _in_block("mid_block", 0, ["1", *rest])
        case ["middle_block_out", "0", leaf]:
            return f"controlnet_mid_block.{leaf}"
        case ["zero_convs", index, "0", leaf]:
            return f"controlnet_down_blocks.{index}.{leaf}"
        case ["input_hint_block", index, leaf]:
            # Every second layer is an activation.
            block = "conv_in" if index == "0" else f"blocks.{int(index) // 2 - 1}"
            return f"controlnet_cond_embedding.{'conv_out' if int(index) == last else block}.{leaf}"
    return None


def _in_block(block: str, layer: int, parts: list[str]) -> str | None:
    match parts:
        case ["0", "op", leaf]:
            return f"{block}.downsamplers.0.conv.{leaf}"
        case ["0", first, second, leaf] if f"{first}.{second}" in _RESNET:
            return f"{block}.resnets.{layer}.{_RESNET[f'{first}.{second}']}.{leaf}"
        case ["0", first, leaf] if first in _RESNET:
            return f"{block}.resnets.{layer}.{_RESNET[first]}.{leaf}"
        case ["1", *rest]:
            return ".".join([f"{block}.attentions.{layer}", *rest])
    return None
