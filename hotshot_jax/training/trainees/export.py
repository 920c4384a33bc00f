"""What was trained, for PyTorch users.

Parameters of the UNet: a diffusers folder of the whole checkpoint, and the temporal layers alone.
Factors: a LoRA file. A ControlNet: its own diffusers folder.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.convert.builders import CONTROLNET, KINDS
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.formats.small_files import copy_small_files
from hotshot_jax.convert.formats.to_torch import positional_tables, write_component
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.convert.tensors.safetensors_writer import write_safetensors
from hotshot_jax.lora import lora_metadata, lora_tensors
from hotshot_jax.parallel.placement import in_host_memory
from hotshot_jax.training.trainees.controlnet import ControlNetTrainee, config_json
from hotshot_jax.training.trainees.lora import LoraTrainee
from hotshot_jax.training.trainees.selection import TEMPORAL, Division, trained_names
from hotshot_jax.training.trainees.trainee import Parameters, Trainee
from hotshot_jax.writing.made_here import check_made_here, list_files
from hotshot_jax.writing.staging import staged_folder

TEMPORAL_FILE = "hsxl_temporal_layers.safetensors"
LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for in a folder."""


def export(
    dest: Path,
    source: Path,
    unet_path: str | None,
    division: Trainee,
    trained: Parameters,
    scheduler_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder with the trained weights; it appears under its name when complete.

    Args:
        dest: the folder; replaced if it is there and an earlier export.
        source: the checkpoint that was trained from. What did not train is read from it anew,
            as it was before it was rounded to a compute dtype.
        unet_path: where the UNet came from if not from there.
        division: what trained.
        trained: NumPy arrays of what trained.
        scheduler_config: content of `scheduler_config.json`, if not the source's.

    Raises:
        UsageError: `dest` is something else than an earlier export.
        HotshotError: the source is gone, or `dest` cannot be written.
    """
    with staged_folder(dest, may_replace=check_made_here) as folder:
        if isinstance(division, LoraTrainee):
            write_lora(folder / LORA_FILE, division, trained)
        elif isinstance(division, ControlNetTrainee):
            controlnet = division.controlnet.merge(trained, {})
            write_component(folder, CONTROLNET, config_json(controlnet), controlnet)
        elif isinstance(division, Division):
            _write_checkpoint(folder, source, unet_path, division, trained)
            if scheduler_config is not None:
                text = json.dumps(dict(scheduler_config), indent=2) + "\n"
                (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
        else:
            raise TypeError(f"cannot export {type(division).__name__}")
        list_files(folder)


def write_temporal_layers(file: Path, unet: nnx.Module) -> None:
    """Writes the temporal layers alone, float32, named and ordered as the published file has them.

    Args:
        file: the `.safetensors` file.
        unet: with arrays.
    """
    parameters = flat_parameters(unet)
    slots = torch_slots(unet)
    tensors: dict[str, np.ndarray] = {}
    for name in trained_names(unet, "temporal"):
        slot = slots[name]
        tensor = slot.to_torch(np.asarray(parameters[slot.path], np.float32))
        tensors[name] = np.ascontiguousarray(tensor)
    for name, table in positional_tables(parameters).items():
        tensors[name] = table.astype(np.float32)
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    write_safetensors(file, layout, tensors.items(), {"format": "pt"})


def write_lora(file: Path, lora: LoraTrainee, trained: Mapping[str, Any]) -> None:
    """Writes trained factors as one file, which diffusers, PEFT and `--lora` read.

    Args:
        file: the `.safetensors` file.
        lora: what trained.
        trained: NumPy arrays of the factors.
    """
    factors = {"unet": lora.factors(trained)}
    tensors = lora_tensors(factors, alpha=lora.rank)
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    metadata = lora_metadata(factors, title=file.stem, alpha=lora.rank)
    write_safetensors(file, layout, tensors.items(), metadata)


def _write_checkpoint(
    folder: Path, source: Path, unet_path: str | None, division: Division, trained: Parameters
) -> None:
    checkpoint = open_checkpoint(source)
    host = in_host_memory()
    for name in KINDS:
        component: Any = getattr(checkpoint, name)
        if name == "unet" and unet_path is not None:
            component = open_component(unet_path, name)
        module = prepare_component(component, dtype=jnp.float32).load(shardings=host)
        if name == "unet":
            values: dict[Any, Any] = dict(flat_parameters(module))
            values |= {division.paths[key]: np.asarray(leaf) for key, leaf in trained.items()}
            module = with_parameters(module, values)
            if any(TEMPORAL in path for path in values):
                write_temporal_layers(folder / TEMPORAL_FILE, module)
        write_component(folder / name, name, component.config, module)
    copy_small_files(checkpoint.path, folder)
    (folder / "model_index.json").write_text(json.dumps(dict(checkpoint.index), indent=2) + "\n")
