"""Writing our models in the diffusers layout, for PyTorch users."""

import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from hotshot_jax.convert.formats.temporal_shape import with_shape
from hotshot_jax.convert.load import table_length
from hotshot_jax.convert.tensors.rules import (
    POSITIONAL_TABLE,
    TEMPORAL,
    Path as ParameterPath,
    Slot,
    flat_parameters,
    torch_slots,
)
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.models.layers.embeddings import positional_encoding

Buffers = Mapping[str, np.ndarray]


def weights_file(component: str) -> str:
    """The file name that diffusers or transformers expects in a component's folder."""
    return (
        "model.safetensors"
        if component.startswith("text_encoder")
        else "diffusion_pytorch_model.safetensors"
    )


def write_component(
    folder: Path,
    component: str,
    config: Mapping[str, Any],
    module: nnx.Module,
    buffers: Buffers | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Writes `config.json` and the weights of one component.

    Args:
        folder: the component's folder; made.
        component: its name, which decides the file's name.
        config: the content of `config.json`.
        module: the model.
        buffers: tensors that are not parameters, by PyTorch's names; by default the positional
            tables that the reference stores, computed.
        dtypes: dtypes of tensors that are to be stored in another than the module's, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config_path = folder / "config.json"
    stated = with_shape(component, config, config_path)
    config_path.write_text(json.dumps(stated, indent=2) + "\n")
    write_weights(folder / weights_file(component), module, buffers, dtypes)


def write_weights(
    file: Path,
    module: nnx.Module,
    buffers: Buffers | None = None,
    dtypes: Mapping[str, str] | None = None,
) -> None:
    """Writes the parameters of `module`, and its buffers, under PyTorch's names.

    The arguments are those of `write_component`.
    """
    parameters = flat_parameters(module)
    slots = torch_slots(module)
    if buffers is None:
        buffers = positional_tables(parameters, table_length(module))
    layout = {
        name: (slot.shape, np.dtype((dtypes or {}).get(name, parameters[slot.path].dtype)))
        for name, slot in slots.items()
    }
    tensors = _tensors(slots, parameters, {name: dtype for name, (_, dtype) in layout.items()})
    layout |= {name: (buffer.shape, buffer.dtype) for name, buffer in buffers.items()}
    # The format is PyTorch's, and loaders look here to see that.
    write_safetensors(file, layout, itertools.chain(tensors, buffers.items()), {"format": "pt"})


def positional_tables(
    parameters: Mapping[ParameterPath, Any], positions: int
) -> dict[str, np.ndarray]:
    """The positional tables that PyTorch stores beside these parameters, by name.

    Args:
        parameters: by path.
        positions: entries of each table.
    """
    tables = {}
    for path, parameter in parameters.items():
        if TEMPORAL in path and path[-2:] == ("to_q", "kernel"):
            name = ".".join([*map(str, path[:-2]), POSITIONAL_TABLE])
            table = positional_encoding(positions, parameter.shape[0])[None]
            tables[name] = table.astype(np.dtype(parameter.dtype))
    return tables


def _tensors(
    slots: Mapping[str, Slot],
    parameters: Mapping[ParameterPath, Any],
    dtypes: Mapping[str, np.dtype[Any]],
) -> Iterator[tuple[str, np.ndarray]]:
    path, parameter = None, None
    for name, slot in slots.items():
        if slot.path != path:
            path, parameter = slot.path, np.asarray(parameters[slot.path])
        assert parameter is not None
        yield name, slot.to_torch(parameter).astype(dtypes[name], copy=False)
