"""Converted checkpoints: the diffusers folder with Orbax arrays in place of PyTorch's tensors.

DEST/model_index.json, scheduler/, tokenizer/, tokenizer_2/     as in the source
DEST/COMPONENT/config.json                                      as in the source
DEST/COMPONENT/weights/                                         Orbax, by parameter path
DEST/COMPONENT/buffers.safetensors                              what is stored but not learned
DEST/hotshot_jax.json                                           format, source, dtypes
"""

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from safetensors.numpy import load_file, save_file

from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.builders import KINDS, model_builder
from hotshot_jax.convert.diffusers_folder import (
    Component,
    DiffusersFolder,
    open_diffusers_folder,
)
from hotshot_jax.convert.file_content import read_json_object
from hotshot_jax.convert.load import abstract, load_module, match_names, with_parameters
from hotshot_jax.convert.memory import check_memory
from hotshot_jax.convert.rules import Path as ParameterPath
from hotshot_jax.convert.rules import flat_parameters, torch_slots
from hotshot_jax.convert.staging import staged_folder
from hotshot_jax.convert.to_torch import write_component
from hotshot_jax.errors import HotshotError
from hotshot_jax.version import __version__

MARKER = "hotshot_jax.json"
FORMAT = 1
_CONFIG = "config.json"
_WEIGHTS = "weights"
_BUFFERS = "buffers.safetensors"
_COPIED = ("scheduler", "tokenizer", "tokenizer_2")
_INDEX = "model_index.json"

Module = TypeVar("Module", bound=nnx.Module)
Progress = Callable[[int], None]


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
        leaves = checkpoint.metadata(self.path / _WEIGHTS).values()
        return sum(math.prod(leaf.shape) * np.dtype(leaf.dtype).itemsize for leaf in leaves)

    def restore(
        self,
        build: Callable[[nnx.Rngs], Module],
        *,
        dtype: Any = None,
        shardings: Mapping[ParameterPath, jax.sharding.Sharding]
        | jax.sharding.Sharding
        | None = None,
    ) -> Module:
        """Builds the module and reads its parameters straight to where they belong.

        Args:
            build: makes the module from random streams; only its shapes are used.
            dtype: dtype in memory; None keeps the stored one.
            shardings: where each parameter goes: by path, or one for all.

        Raises:
            HotshotError: the arrays are damaged or do not fit the configuration.
        """
        module = abstract(build)
        stored = checkpoint.metadata(self.path / _WEIGHTS)
        tree: dict[str, Any] = {}
        for path, leaf in flat_parameters(module).items():
            key = "/".join(map(str, path))
            kept = stored[key].dtype if key in stored else leaf.dtype
            sharding = shardings.get(path) if isinstance(shardings, Mapping) else shardings
            _insert(
                tree,
                path,
                jax.ShapeDtypeStruct(
                    leaf.shape, kept if dtype is None else dtype, sharding=sharding
                ),
            )
        loaded = checkpoint.load(self.path / _WEIGHTS, tree)
        values = {path: _find(loaded, path) for path in flat_parameters(module)}
        return with_parameters(module, values)


@dataclasses.dataclass(frozen=True)
class ConvertedFolder:
    """A whole converted checkpoint; the attributes are those of `DiffusersFolder`."""

    path: Path
    index: Mapping[str, Any]
    unet: ConvertedComponent
    vae: ConvertedComponent
    text_encoder: ConvertedComponent
    text_encoder_2: ConvertedComponent
    tokenizer: Path
    tokenizer_2: Path
    scheduler_config: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters as they are stored."""
        return sum(getattr(self, name).nbytes for name in KINDS)


def is_converted(folder: Path) -> bool:
    """Whether a folder holds a converted checkpoint."""
    return (folder / MARKER).is_file()


def open_converted(folder: Path) -> ConvertedFolder:
    """Opens a converted checkpoint.

    Raises:
        HotshotError: it was written by a newer version, or files are missing or damaged.
    """
    marker = read_json_object(folder / MARKER)
    if marker.get("format") != FORMAT:
        raise HotshotError(
            f"{folder / MARKER}: format {marker.get('format')!r}, this version reads {FORMAT}; "
            "convert the checkpoint again."
        )
    components: dict[str, Any] = {
        name: ConvertedComponent(
            name=name,
            path=folder / name,
            config_path=folder / name / _CONFIG,
            config=read_json_object(folder / name / _CONFIG),
            dtypes=marker.get("dtypes", {}).get(name, {}),
        )
        for name in KINDS
    }
    return ConvertedFolder(
        path=folder,
        index=read_json_object(folder / _INDEX),
        tokenizer=folder / "tokenizer",
        tokenizer_2=folder / "tokenizer_2",
        scheduler_config=read_json_object(folder / "scheduler" / "scheduler_config.json"),
        **components,
    )


def convert_folder(
    source: DiffusersFolder,
    dest: Path,
    *,
    dtype: Any = None,
    progress: Progress = lambda size: None,
) -> None:
    """Converts a checkpoint in the diffusers layout.

    Args:
        source: the checkpoint.
        dest: the folder to make; it appears under its name when it is complete.
        dtype: dtype to store; None keeps the source's, so that `to_torch` gives it back bit for
            bit.
        progress: called with the bytes of each parameter.

    Raises:
        UsageError: `dest` is the source, or is not empty.
        HotshotError: the tensors do not fit the configurations, memory or disk are too small.
    """
    with staged_folder(dest, source=source.path, required_bytes=source.nbytes) as folder:
        for name in _COPIED:
            shutil.copytree(source.path / name, folder / name)
        shutil.copy(source.path / _INDEX, folder / _INDEX)
        dtypes = {
            component.name: convert_component(
                component, folder / component.name, dtype=dtype, progress=progress
            )
            for component in source.components
        }
        marker = {
            "format": FORMAT,
            "version": __version__,
            "source": str(source.path),
            "dtypes": dtypes,
        }
        (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n")


def write_torch_folder(source: ConvertedFolder, dest: Path) -> None:
    """Writes a converted checkpoint in the diffusers layout again.

    Raises:
        UsageError: `dest` is the source, or is not empty.
        HotshotError: the checkpoint is damaged, or the disk is too small.
    """
    with staged_folder(dest, source=source.path, required_bytes=source.nbytes) as folder:
        for name in _COPIED:
            shutil.copytree(source.path / name, folder / name)
        shutil.copy(source.path / _INDEX, folder / _INDEX)
        for name in KINDS:
            component: ConvertedComponent = getattr(source, name)
            where = str(component.config_path)
            build = model_builder(name, component.config, where=where)
            module = component.restore(build)
            buffers = component.path / _BUFFERS
            write_component(
                folder / name,
                name,
                component.config,
                module,
                load_file(buffers) if buffers.exists() else {},
                dtypes=component.dtypes,
            )


def convert_component(
    component: Component,
    folder: Path,
    *,
    dtype: Any = None,
    progress: Progress = lambda size: None,
) -> dict[str, str]:
    """Converts one model of a checkpoint.

    Args:
        component: the model.
        folder: the folder to make.
        dtype: dtype to store; None keeps the source's, or the widest of them.
        progress: called with the bytes of each parameter.

    Returns:
        Dtypes of the source's tensors that differ from what is stored, by name.

    Raises:
        HotshotError: the tensors do not fit the configuration, or memory is too small.
    """
    folder.mkdir()
    (folder / _CONFIG).write_text(json.dumps(component.config, indent=2) + "\n")
    where = str(component.config_path)
    slots = torch_slots(abstract(model_builder(component.name, component.config, where=where)))
    names = match_names(slots, component.tensors, str(component.path))
    given = {slot: component.tensors.dtype(name) for slot, name in names.items()}
    stored = _common_dtype(given.values()) if dtype is None else np.dtype(dtype)
    build = model_builder(component.name, component.config, where=where, param_dtype=stored)
    check_memory(sum(math.prod(slot.shape) for slot in slots.values()) * stored.itemsize)
    module = load_module(
        build, component.tensors, where=str(component.path), dtype=stored, progress=progress
    )
    tree: dict[str, Any] = {}
    for path, parameter in flat_parameters(module).items():
        _insert(tree, path, parameter)
    checkpoint.save(folder / _WEIGHTS, tree)
    weights = set(names.values())
    others = {
        name: np.array(tensor.read())
        for name, tensor in component.tensors.items()
        if name not in weights
    }
    if others:
        save_file(others, folder / _BUFFERS)
    return {slot: each.name for slot, each in given.items() if dtype is None and each != stored}


def _common_dtype(dtypes: Iterable[np.dtype[Any]]) -> np.dtype[Any]:
    return np.dtype(functools.reduce(jnp.promote_types, dtypes))


def _insert(tree: dict[str, Any], path: ParameterPath, leaf: Any) -> None:
    *parents, last = map(str, path)
    for part in parents:
        tree = tree.setdefault(part, {})
    tree[last] = leaf


def _find(tree: Mapping[str, Any], path: ParameterPath) -> Any:
    for part in path:
        tree = tree[str(part)]
    return tree


def open_checkpoint(
    folder: Path, *, variant: str | None = None
) -> DiffusersFolder | ConvertedFolder:
    """Opens a checkpoint folder of either form.

    Raises:
        HotshotError: it is neither, incomplete, or of another model.
    """
    if is_converted(folder):
        return open_converted(folder)
    return open_diffusers_folder(folder, variant=variant)


def load_component(
    component: Component | ConvertedComponent,
    *,
    dtype: Any,
    shardings: Mapping[ParameterPath, jax.sharding.Sharding] | jax.sharding.Sharding | None = None,
    progress: Progress = lambda size: None,
) -> nnx.Module:
    """Loads one model of a checkpoint of either form.

    Args:
        component: the model.
        dtype: dtype of parameters and computation.
        shardings: where each parameter goes: by path, or one for all.
        progress: called with bytes as they are placed.

    Raises:
        HotshotError: configuration or weights are damaged or do not fit each other.
    """
    build = model_builder(
        component.name,
        component.config,
        where=str(component.config_path),
        dtype=dtype,
        param_dtype=dtype,
    )
    if isinstance(component, ConvertedComponent):
        module = component.restore(build, dtype=dtype, shardings=shardings)
        progress(component.nbytes)
        return module
    return load_module(
        build,
        component.tensors,
        where=str(component.path),
        dtype=dtype,
        shardings=shardings,
        progress=progress,
    )
