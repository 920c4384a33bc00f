"""Opening a checkpoint of either form, and loading its models once all of it has been checked."""

import dataclasses
import functools
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
from hotshot_jax.convert.tensors.rules import (
    Path as ParameterPath,
    Slot,
    flat_parameters,
    torch_slots,
)
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
        match: the model with shapes in place of arrays, and `tensors` that fill it.
        dtype: dtype in which its parameters will lie in memory.
        read: fills it as it is stored: takes shardings and progress as `load` does.
        tensors: gives its tensors under the model's names.
    """

    match: Match[Any]
    dtype: Any
    read: Callable[..., Any]
    tensors: Callable[[], TensorSource]

    @property
    def module(self) -> Any:
        """The model with shapes in place of arrays."""
        return self.match.module

    @property
    def nbytes(self) -> int:
        """Bytes of its parameters in memory: what `load` tells its progress, all in all."""
        return parameter_bytes(self.module, self.dtype)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each of its tensors, by PyTorch's names."""
        return {name: slot.shape for name, slot in self.match.slots.items()}

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
        if change is None:
            return self.read(shardings=shardings, progress=progress)
        return fill_module(
            self.match,
            change(self.tensors()),
            dtype=self.dtype,
            shardings=shardings,
            progress=progress,
        )

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
        changed = change(self.tensors())
        return read_parameters(
            self.match, changed, dtype=self.dtype, shardings=shardings, only=paths
        )


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
    slot_of = {stored: slot for slot, stored in match.names.items()}
    return PreparedComponent(
        dataclasses.replace(match, names={slot: slot for slot in match.slots}),
        dtype,
        functools.partial(fill_module, match, component.tensors, dtype=dtype),
        lambda: component.tensors.renamed(slot_of.get),
    )


def _prepare_converted(
    component: ConvertedComponent, module: nnx.Module, dtype: Any
) -> PreparedComponent:
    component.check(module)
    slots = torch_slots(module)

    def read(*, shardings: Any, progress: Progress) -> nnx.Module:
        restored = component.restore(module, dtype=dtype, shardings=shardings)
        progress(parameter_bytes(module, dtype))
        return restored

    def tensors() -> TensorSource:
        # In the stored dtype and on the host: what is changed is changed before the cast.
        host = in_host_memory()
        return module_source(component.restore(module, shardings=host), component.path)

    match = Match(module, slots, {slot: slot for slot in slots})
    return PreparedComponent(match, dtype, read, tensors)


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
    return prepare_component(component, dtype=np.float32).tensors()


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
