"""Converted checkpoints: the diffusers folder with Orbax arrays in place of PyTorch's tensors.

DEST/model_index.json, scheduler/, tokenizer/, tokenizer_2/     as in the source
DEST/COMPONENT/config.json      as in the source; the UNet's also states what temporal_shape.py says
DEST/COMPONENT/weights/                                         Orbax, by parameter path
DEST/COMPONENT/buffers.safetensors                              what is stored but not learned
DEST/.../hotshot_files.json                                     sizes and checksums of both
DEST/hotshot_jax.json                                           format, source, dtypes

A ControlNet alone has its config.json and weights/ directly in DEST.
"""

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx, traverse_util

from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.builders import CONTROLNET, KINDS
from hotshot_jax.convert.formats.diffusers_folder import (
    TOKENIZERS,
    CheckpointFolder,
    read_scheduler_config,
)
from hotshot_jax.convert.formats.tokenizer_files import check_tokenizer_folder
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.convert.tensors.rules import Path as ParameterPath, flat_parameters
from hotshot_jax.errors import HotshotError

MARKER = "hotshot_jax.json"
FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "weights"
BUFFERS = "buffers.safetensors"
INDEX = "model_index.json"

Module = TypeVar("Module", bound=nnx.Module)


@dataclasses.dataclass(frozen=True)
class ConvertedComponent:
    """One model of a converted checkpoint.

    Attributes:
        name: name of its folder.
        path: its folder.
        config_path: its `config.json`.
        config: the content of that file.
        dtypes: dtype of each tensor of the source that differs from what is stored, by name.
    """

    name: str
    path: Path
    config_path: Path
    config: Mapping[str, Any]
    dtypes: Mapping[str, str]

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters as they are stored."""
        leaves = checkpoint.metadata(self.path / WEIGHTS).values()
        return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)

    def check(self, module: nnx.Module) -> None:
        """Checks, without reading them, that the stored arrays are those of a module.

        Raises:
            HotshotError: the checkpoint is not complete or does not fit the configuration.
        """
        checkpoint.check(self.path / WEIGHTS, parameter_tree(flat_parameters(module)))

    def restore(
        self,
        module: Module,
        *,
        dtype: Any = None,
        shardings: Mapping[ParameterPath, jax.sharding.Sharding]
        | jax.sharding.Sharding
        | None = None,
    ) -> Module:
        """Reads a module's parameters straight to where they belong.

        Args:
            module: with shapes in place of arrays.
            dtype: dtype in memory; None keeps the stored one.
            shardings: where each parameter goes: by path, or one for all.

        Raises:
            HotshotError: the arrays are damaged or do not fit the configuration.
        """
        stored = checkpoint.metadata(self.path / WEIGHTS)
        targets = {}
        for path, leaf in flat_parameters(module).items():
            key = "/".join(map(str, path))
            kept = stored[key].dtype if key in stored else leaf.dtype
            sharding = shardings.get(path) if isinstance(shardings, Mapping) else shardings
            targets[path] = jax.ShapeDtypeStruct(
                leaf.shape, kept if dtype is None else dtype, sharding=sharding
            )
        tree = checkpoint.load(self.path / WEIGHTS, parameter_tree(targets))
        loaded = traverse_util.flatten_dict(tree)
        return with_parameters(module, {path: loaded[tuple(map(str, path))] for path in targets})


class ConvertedFolder(CheckpointFolder[ConvertedComponent]):
    """A whole converted checkpoint."""


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a converted checkpoint."""
    return (folder / MARKER).is_file()


def open_converted(folder: Path) -> ConvertedFolder:
    """Opens a converted checkpoint.

    Raises:
        HotshotError: it was written by a newer version, holds one model alone, or files are missing
            or damaged.
    """
    dtypes = _read_dtypes(folder)
    if CONTROLNET in dtypes:
        raise HotshotError(f"{folder} is a converted ControlNet, not a model; give it as such.")
    components: dict[str, Any] = {
        name: _component(folder / name, name, dtypes, folder) for name in KINDS
    }
    index = read_json_object(folder / INDEX)
    for name in TOKENIZERS:
        check_tokenizer_folder(folder / name)
    return ConvertedFolder(
        path=folder,
        index=index,
        tokenizer=folder / "tokenizer",
        tokenizer_2=folder / "tokenizer_2",
        scheduler_config=read_scheduler_config(folder, index),
        **components,
    )


def open_converted_controlnet(folder: Path) -> ConvertedComponent:
    """Opens a converted ControlNet.

    Raises:
        HotshotError: it is something else, was written by a newer version, or files are missing or
            damaged.
    """
    return _component(folder, CONTROLNET, _read_dtypes(folder), folder)


def _read_dtypes(folder: Path) -> Mapping[str, Any]:
    marker = read_json_object(folder / MARKER)
    if marker.get("format") != FORMAT:
        raise HotshotError(
            f"{folder / MARKER}: format {marker.get('format')!r}, this version reads {FORMAT}; "
            "convert the checkpoint again."
        )
    dtypes = marker.get("dtypes")
    return dtypes if isinstance(dtypes, dict) else {}


def _component(
    path: Path, name: str, dtypes: Mapping[str, Any], folder: Path
) -> ConvertedComponent:
    if not isinstance(dtypes.get(name), dict):
        raise HotshotError(
            f"{folder / MARKER} lacks the dtypes of the {name}; convert the checkpoint again."
        )
    config = read_json_object(path / CONFIG)
    return ConvertedComponent(name, path, path / CONFIG, config, dtypes[name])


def parameter_tree(parameters: Mapping[ParameterPath, Any]) -> dict[str, Any]:
    """Parameters by path as nested dictionaries, the form in which they are stored."""
    texts = {tuple(map(str, path)): leaf for path, leaf in parameters.items()}
    return traverse_util.unflatten_dict(texts)
