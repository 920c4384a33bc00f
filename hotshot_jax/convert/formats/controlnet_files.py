"""Opening a ControlNet: a diffusers folder, a single file, or a converted one."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from hotshot_jax.convert.assembly import AnyComponent
from hotshot_jax.convert.builders import CONTROLNET
from hotshot_jax.convert.formats.controlnet_names import with_diffusers_names
from hotshot_jax.convert.formats.converted import is_converted, open_converted_controlnet
from hotshot_jax.convert.formats.diffusers_folder import MODEL_INDEX, Component, open_component
from hotshot_jax.convert.formats.single_file_refusals import CONTROLNET as CONTROLNET_FILE
from hotshot_jax.convert.formats.single_file_refusals import refuse_other_kinds
from hotshot_jax.convert.hub import resolve
from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.convert.tensors.weight_files import choose_weight_files, find_weight_files
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.controlnet.shapes import config_values

_CONTROLNETS_ALONE = ("control_model.", "input_hint_block.", "controlnet_cond_embedding.")
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")


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
    if file.suffix in _PICKLES:
        raise HotshotError(
            f"{file} is a pickle, which can run any code when it is read; use a .safetensors file."
        )
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
