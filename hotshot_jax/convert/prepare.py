"""Opening a checkpoint of either form, and loading its models once all of it has been checked."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
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
from hotshot_jax.convert.load import Match, Progress, abstract, fill_module, match_module
from hotshot_jax.convert.rules import Path as ParameterPath
from hotshot_jax.convert.rules import Slot, flat_parameters, torch_slots
from hotshot_jax.convert.tensor_source import LazyTensor, TensorSource

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
        read: fills it: takes shardings, progress and change as `load` does.
    """

    module: Any
    read: Callable[..., Any]

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
        slot_of = {stored: slot for slot, stored in match.names.items()}
        changed = change(component.tensors.renamed(slot_of.get))
        same = dataclasses.replace(match, names={slot: slot for slot in match.slots})
        return fill_module(same, changed, dtype=dtype, shardings=shardings, progress=progress)

    return PreparedComponent(match.module, read)


def _prepare_converted(
    component: ConvertedComponent, module: nnx.Module, dtype: Any
) -> PreparedComponent:
    component.check(module)

    def read(*, shardings: Any, progress: Progress, change: Change | None) -> nnx.Module:
        if change is None:
            restored = component.restore(module, dtype=dtype, shardings=shardings)
            progress(component.nbytes)
            return restored
        # In the stored dtype and on the host: what is changed is changed before the cast.
        host = jax.sharding.SingleDeviceSharding(jax.devices("cpu")[0])
        stored = component.restore(module, dtype=None, shardings=host)
        changed = change(module_source(stored, component.path))
        slots = torch_slots(module)
        match = Match(module, slots, {slot: slot for slot in slots})
        return fill_module(match, changed, dtype=dtype, shardings=shardings, progress=progress)

    return PreparedComponent(module, read)


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
