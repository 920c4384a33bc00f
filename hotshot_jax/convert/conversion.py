"""Converting a whole checkpoint or a ControlNet, to our form and back to PyTorch's."""

import dataclasses
import functools
import json
import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.builders import KINDS, model_builder
from hotshot_jax.convert.formats.converted import (
    BUFFERS,
    CONFIG,
    FORMAT,
    INDEX,
    MARKER,
    WEIGHTS,
    ConvertedComponent,
    ConvertedFolder,
    parameter_tree,
)
from hotshot_jax.convert.formats.diffusers_folder import Component, DiffusersFolder
from hotshot_jax.convert.formats.small_files import copy_small_files
from hotshot_jax.convert.formats.temporal_shape import with_shape
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import Match, Progress, abstract, fill_module, match_module
from hotshot_jax.convert.tensors.file_content import check_file_list, write_file_list
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.errors import HotshotError
from hotshot_jax.version import __version__
from hotshot_jax.writing.staging import check_destination, staged_folder

# Of the memory that weights take, what converting them takes.
_HEADROOM = 1.25
_WEIGHT_ENDINGS = frozenset(
    {".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".onnx"}
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
        progress: called with bytes of the source, as they are converted.

    Raises:
        UsageError: `dest` is the source, or is not empty.
        HotshotError: the tensors do not fit the configurations, memory or disk are too small.
    """
    check_destination(dest, source=source.path)
    planned = [_plan(component, dtype) for component in source.components]
    check_memory(max(plan.nbytes for plan in planned))
    with staged_folder(dest, required_bytes=sum(plan.nbytes for plan in planned)) as folder:
        copy_small_files(source.path, folder)
        shutil.copyfile(source.path / INDEX, folder / INDEX)
        dtypes = {
            plan.component.name: plan.convert(folder / plan.component.name, progress)
            for plan in planned
        }
        _write_marker(folder, source.path, dtypes)


def convert_component(
    source: Component,
    dest: Path,
    *,
    dtype: Any = None,
    progress: Progress = lambda size: None,
) -> None:
    """Converts a model alone, such as a ControlNet; all else is as in `convert_folder`.

    Args:
        source: the model.
        dest: see `convert_folder`.
        dtype: see there.
        progress: see there.
    """
    check_destination(dest, source=source.path)
    plan = _plan(source, dtype)
    check_memory(plan.nbytes)
    with staged_folder(dest, required_bytes=plan.nbytes) as folder:
        _write_marker(folder, source.path, {source.name: plan.convert(folder, progress)})


def ignored_files(source: DiffusersFolder) -> list[str]:
    """Weights and training states that lie in a checkpoint's folders and are not converted.

    Copies with averaged weights, other variants and formats, optimiser states, files of temporal
    layers alone: all of these are published beside the weights.

    Returns:
        Paths below the checkpoint's folder.
    """
    used = {tensor.file for component in source.components for tensor in component.tensors.values()}
    folders = [source.path, *(component.path for component in source.components)]
    return [
        file.relative_to(source.path).as_posix()
        for folder in folders
        for file in sorted(folder.iterdir())
        if file.suffix in _WEIGHT_ENDINGS and file.is_file() and file not in used
    ]


def write_torch_folder(source: ConvertedFolder, dest: Path) -> None:
    """Writes a converted checkpoint in the diffusers layout again.

    Raises:
        UsageError: `dest` is the source, or is not empty.
        HotshotError: the checkpoint is damaged, or the disk is too small.
    """
    check_destination(dest, source=source.path)
    components: list[ConvertedComponent] = [getattr(source, name) for name in KINDS]
    modules = [_checked_module(component) for component in components]
    check_memory(max(component.nbytes for component in components))
    with staged_folder(dest, required_bytes=source.nbytes) as folder:
        copy_small_files(source.path, folder)
        shutil.copyfile(source.path / INDEX, folder / INDEX)
        for component, module in zip(components, modules, strict=True):
            _write_torch_component(component, module, folder / component.name)


def write_torch_controlnet(source: ConvertedComponent, dest: Path) -> None:
    """Writes a converted ControlNet in the diffusers layout again.

    The errors are those of `write_torch_folder`.
    """
    check_destination(dest, source=source.path)
    module = _checked_module(source)
    check_memory(source.nbytes)
    with staged_folder(dest, required_bytes=source.nbytes) as folder:
        _write_torch_component(source, module, folder)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """How one model will be converted; everything short of its weights has been checked.

    Attributes:
        component: the model.
        match: its tensors and the parameters that they fill.
        given: dtypes of the source's tensors, where they are to be known again.
        stored: dtype to store.
    """

    component: Component
    match: Match[nnx.Module]
    given: Mapping[str, np.dtype[Any]]
    stored: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        """Bytes of the parameters as they will be stored."""
        slots = self.match.slots.values()
        return sum(math.prod(slot.shape) for slot in slots) * self.stored.itemsize

    def convert(self, folder: Path, progress: Progress) -> dict[str, str]:
        """Writes the model to a folder, which is made.

        Returns:
            Dtypes of the source's tensors that differ from what is stored, by name.
        """
        component = self.component
        folder.mkdir(exist_ok=True)
        config = with_shape(component.name, component.config, component.config_path)
        (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
        advance = _scaled(progress, self.nbytes, component.tensors.nbytes)
        module = fill_module(self.match, component.tensors, dtype=self.stored, progress=advance)
        checkpoint.save(folder / WEIGHTS, parameter_tree(flat_parameters(module)))
        weights = set(self.match.names.values())
        others = {
            name: np.array(tensor.read())
            for name, tensor in component.tensors.items()
            if name not in weights
        }
        if others:
            layout = {name: (array.shape, array.dtype) for name, array in others.items()}
            write_safetensors(folder / BUFFERS, layout, others.items())
            write_file_list(folder, [folder / BUFFERS])
        return {slot: dtype.name for slot, dtype in self.given.items() if dtype != self.stored}


def _scaled(progress: Progress, total: int, told_total: int) -> Progress:
    """Takes sizes that add up to `total`, and tells sizes that add up to `told_total`."""
    done = told = 0

    def advance(size: int) -> None:
        nonlocal done, told
        done += size
        now = told_total * done // total
        progress(now - told)
        told = now

    return advance


def _plan(component: Component, dtype: Any) -> _Plan:
    build = model_builder(component.name, component.config, where=str(component.config_path))
    match = match_module(build, component.tensors, where=str(component.path))
    given = {slot: component.tensors.dtype(name) for slot, name in match.names.items()}
    if dtype is not None:
        return _Plan(component, match, {}, np.dtype(dtype))
    return _Plan(
        component, match, given, np.dtype(functools.reduce(jnp.promote_types, given.values()))
    )


def _checked_module(component: ConvertedComponent) -> nnx.Module:
    """The model without its parameters, after a check that the stored ones are those of it."""
    build = model_builder(component.name, component.config, where=str(component.config_path))
    module = abstract(build)
    component.check(module)
    return module


def _write_torch_component(component: ConvertedComponent, module: nnx.Module, folder: Path) -> None:
    write_component(
        folder,
        component.name,
        component.config,
        component.restore(module),
        _read_buffers(component.path / BUFFERS),
        dtypes=component.dtypes,
    )


def _write_marker(folder: Path, source: Path, dtypes: Mapping[str, Any]) -> None:
    marker = {
        "format": FORMAT,
        "version": __version__,
        # Its name alone: a converted checkpoint may be passed on.
        "source": source.name,
        "dtypes": dtypes,
    }
    (folder / MARKER).write_text(json.dumps(marker, indent=2) + "\n")


def _read_buffers(file: Path) -> dict[str, np.ndarray]:
    if not file.exists():
        return {}
    check_file_list(file.parent, whole=True)
    return {name: tensor.read() for name, tensor in open_file(file).items()}


def available_memory() -> int | None:
    """Bytes of main memory that programs can still take, or None where that is not known."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    return None


def check_memory(weights: int) -> None:
    """Checks that weights of so many bytes can be converted.

    Raises:
        HotshotError: they would not fit.
    """
    available, needed = available_memory(), int(weights * _HEADROOM)
    if available is not None and needed > available:
        raise HotshotError(
            f"Not enough memory: converting takes {needed / 2**30:.1f} GiB, "
            f"{available / 2**30:.1f} GiB are free. Close other programs, or use another machine."
        )
