"""Opening a checkpoint of either form, and loading its models once all of it has been checked."""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.formats.converted import (
    ConvertedComponent,
    ConvertedFolder,
    is_converted,
    open_converted,
)
from hotshot_jax.convert.formats.diffusers_folder import (
    Component,
    DiffusersFolder,
    open_diffusers_folder,
)
from hotshot_jax.convert.load import (
    Match,
    Progress,
    abstract,
    fill_module,
    match_module,
    read_parameters,
)
from hotshot_jax.convert.tensors.rules import Path as ParameterPath
from hotshot_jax.convert.tensors.rules import Slot, flat_parameters, torch_slots
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource
from hotshot_jax.parallel.placement import in_host_memory

Change = Callable[[TensorSource], TensorSource]
"""Takes a component's tensors under the model's names and gives them changed."""


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
        dtype: dtype in which its parameters will lie in memory.
        read: fills it: takes shardings, progress and change as `load` does.
        reread: reads single parameters again: takes the arguments of `parameters`.
    """

    module: Any
    dtype: Any
    read: Callable[..., Any]
    reread: Callable[..., dict[ParameterPath, jax.Array]]

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters in memory: what `load` tells its progress, all in all."""
        return parameter_bytes(self.module, self.dtype)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of its tensors, by PyTorch's names."""
        return {name: slot.shape for name, slot in torch_slots(self.module).items()}

    def load(
        self,
        *,
        shardings: Mapping[ParameterPath, jax.sharding.Sharding]
        | jax.sharding.Sharding
        | None = None,
        progress: Progress = lambda size: None,
        change: Change | None = None,
    ) -> nnx.Module:
        """Reads the weights.

        Args:
            shardings: where each parameter goes: by path, or one for all.
            progress: called with bytes as they are placed.
            change: what is to be done to the tensors, under the model's names, before they are
                cast: merging LoRAs into them.

        Raises:
            HotshotError: weights are damaged or not finite.
        """
        return self.read(shardings=shardings, progress=progress, change=change)

    def parameters(
        self,
        paths: Collection[ParameterPath],
        *,
        shardings: Mapping[ParameterPath, jax.sharding.Sharding]
        | jax.sharding.Sharding
        | None = None,
        change: Change,
    ) -> dict[ParameterPath, jax.Array]:
        """Reads some of the weights again, changed in another way than at first.

        Args:
            paths: which parameters.
            shardings: where each goes: by path, or one for all.
            change: as in `load`.

        Raises:
            HotshotError: weights are damaged or not finite.
        """
        return self.reread(paths, shardings=shardings, change=change)


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

    def read(*, shardings: Any, progress: Progress, change: Change | None) -> nnx.Module:
        if change is None:
            return fill_module(
                match, component.tensors, dtype=dtype, shardings=shardings, progress=progress
            )
        return fill_module(
            same, change(renamed()), dtype=dtype, shardings=shardings, progress=progress
        )

    def reread(
        paths: Collection[ParameterPath], *, shardings: Any, change: Change
    ) -> dict[ParameterPath, jax.Array]:
        return read_parameters(
            same, change(renamed()), dtype=dtype, shardings=shardings, only=paths
        )

    same = dataclasses.replace(match, names={slot: slot for slot in match.slots})
    slot_of = {stored: slot for slot, stored in match.names.items()}

    def renamed() -> TensorSource:
        return component.tensors.renamed(slot_of.get)

    return PreparedComponent(match.module, dtype, read, reread)


def _prepare_converted(
    component: ConvertedComponent, module: nnx.Module, dtype: Any
) -> PreparedComponent:
    component.check(module)

    def read(*, shardings: Any, progress: Progress, change: Change | None) -> nnx.Module:
        if change is None:
            restored = component.restore(module, dtype=dtype, shardings=shardings)
            progress(parameter_bytes(module, dtype))
            return restored
        return fill_module(
            same, change(stored()), dtype=dtype, shardings=shardings, progress=progress
        )

    def reread(
        paths: Collection[ParameterPath], *, shardings: Any, change: Change
    ) -> dict[ParameterPath, jax.Array]:
        return read_parameters(same, change(stored()), dtype=dtype, shardings=shardings, only=paths)

    slots = torch_slots(module)
    same = Match(module, slots, {slot: slot for slot in slots})

    def stored() -> TensorSource:
        # In the stored dtype and on the host: what is changed is changed before the cast.
        host = in_host_memory()
        return module_source(component.restore(module, dtype=None, shardings=host), component.path)

    return PreparedComponent(module, dtype, read, reread)


def parameter_bytes(module: nnx.Module, dtype: Any) -> int:
    """Bytes of a module's parameters in one dtype.

    Args:
        module: concrete or with shapes in place of arrays.
        dtype: of all parameters.
    """
    sizes = (math.prod(leaf.shape) for leaf in flat_parameters(module).values())
    return sum(sizes) * np.dtype(dtype).itemsize


def component_source(component: Component | ConvertedComponent) -> TensorSource:
    """The tensors of a component under PyTorch's names; a converted one is read for that."""
    if isinstance(component, Component):
        return component.tensors
    build = model_builder(component.name, component.config, where=str(component.config_path))
    module = abstract(build)
    component.check(module)
    host = in_host_memory()
    return module_source(component.restore(module, shardings=host), component.path)


def module_source(module: nnx.Module, where: Path) -> TensorSource:
    """The parameters of a module as PyTorch's tensors.

    Args:
        module: with arrays.
        where: what messages name as their place.
    """
    parameters = flat_parameters(module)

    def lazy(slot: Slot) -> LazyTensor:
        parameter = parameters[slot.path]
        return LazyTensor(
            name=slot.name,
            shape=slot.shape,
            dtype=np.dtype(parameter.dtype),
            file=where,
            reader=lambda: slot.to_torch(np.asarray(parameter)),
            releaser=lambda: None,
        )

    return TensorSource([lazy(slot) for slot in torch_slots(module).values()], where)
