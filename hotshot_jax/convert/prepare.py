"""Opening a checkpoint of either form, and loading its models once all of it has been checked."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.converted import (
    ConvertedComponent,
    ConvertedFolder,
    is_converted,
    open_converted,
)
from hotshot_jax.convert.diffusers_folder import (
    Component,
    DiffusersFolder,
    open_diffusers_folder,
)
from hotshot_jax.convert.load import Progress, abstract, fill_module, match_module
from hotshot_jax.convert.rules import Path as ParameterPath


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


@dataclasses.dataclass(frozen=True)
class PreparedComponent:
    """One model of a checkpoint of which everything but its weights has been checked.

    Attributes:
        module: the model with shapes in place of arrays.
        read: fills it: takes shardings and progress as `load` does.
    """

    module: Any
    read: Callable[..., Any]

    def load(
        self,
        *,
        shardings: Mapping[ParameterPath, jax.sharding.Sharding]
        | jax.sharding.Sharding
        | None = None,
        progress: Progress = lambda size: None,
    ) -> nnx.Module:
        """Reads the weights.

        Args:
            shardings: where each parameter goes: by path, or one for all.
            progress: called with bytes as they are placed.

        Raises:
            HotshotError: weights are damaged or not finite.
        """
        return self.read(shardings=shardings, progress=progress)


def prepare_component(
    component: Component | ConvertedComponent, *, dtype: Any
) -> PreparedComponent:
    """Checks one model of a checkpoint of either form, without reading its weights.

    Args:
        component: the model.
        dtype: dtype of parameters and computation.

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
        return _prepare_converted(component, abstract(build), dtype)
    match = match_module(build, component.tensors, where=str(component.path))
    read = functools.partial(fill_module, match, component.tensors, dtype=dtype)
    return PreparedComponent(match.module, read)


def _prepare_converted(
    component: ConvertedComponent, module: nnx.Module, dtype: Any
) -> PreparedComponent:
    component.check(module)

    def read(*, shardings: Any, progress: Progress) -> nnx.Module:
        restored = component.restore(module, dtype=dtype, shardings=shardings)
        progress(component.nbytes)
        return restored

    return PreparedComponent(module, read)
