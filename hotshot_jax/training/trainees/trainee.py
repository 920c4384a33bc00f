"""What trains, as training takes it: a model divided by a selection, and written for PyTorch."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.choices import SELECTIONS
from hotshot_jax.convert.builders import KINDS
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.formats.small_files import copy_small_files
from hotshot_jax.convert.formats.temporal_layers import HOTSHOT, write_temporal_layers
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.prepare import module_source, open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import TEMPORAL, Path, Slot, flat_parameters, torch_slots
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import UsageError
from hotshot_jax.parallel.placement import in_host_memory
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.writing.places import check_made_here, list_files
from hotshot_jax.writing.staging import staged_folder

Parameters = dict[str, jax.Array]
"""Parameters by their path, its parts joined with "/"."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What was trained from.

    Attributes:
        source: the checkpoint. What did not train is read from it anew, as it was before it was
            rounded to a compute dtype.
        unet_path: where the UNet came from if not from there.
        scheduler_config: content of `scheduler_config.json`, if not the source's.
    """

    source: FilePath
    unet_path: str | None = None
    scheduler_config: Mapping[str, Any] | None = None


class Trainee(Protocol):
    """A model taken apart into what trains and what does not."""

    @property
    def trained(self) -> frozenset[str]:
        """Names of what trains."""
        ...

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What trains, and what does not, before the first step.

        Args:
            values: parameters in host memory: those of the UNet, float32, by path; those of the
                text encoders, in the compute dtype, by path behind "text_encoder" or
                "text_encoder_2".
            seed: of initial values that the UNet does not have.

        Returns:
            Arrays by name, in host memory.
        """
        ...

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """Where each parameter goes, by name; what trains and what does not."""
        ...

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The model that is trained, called as the UNet is, control frames after the sizes."""
        ...

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """The models that a pipeline needs to show what was trained, by `Components`' names."""
        ...

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """Writes what was trained, for PyTorch users.

        Args:
            folder: an empty one.
            trained: NumPy arrays of what trained.
            origin: what it was trained from.

        Raises:
            HotshotError: the source is gone.
        """
        ...


def export(
    dest: FilePath,
    source: FilePath,
    unet_path: str | None,
    trainee: Trainee,
    trained: Parameters,
    scheduler_config: Mapping[str, Any] | None = None,
) -> None:
    """Writes a folder with the trained weights; it appears under its name when complete.

    Args:
        dest: the folder; replaced if it is there and an earlier export.
        source: see `Origin`.
        unet_path: see there.
        trainee: what trained.
        trained: NumPy arrays of what trained.
        scheduler_config: see `Origin`.

    Raises:
        UsageError: `dest` is something else than an earlier export.
        HotshotError: the source is gone, or `dest` cannot be written.
    """
    with staged_folder(dest, may_replace=check_made_here) as folder:
        trainee.export(folder, trained, Origin(source, unet_path, scheduler_config))
        list_files(folder)


def write_checkpoint(folder: FilePath, origin: Origin, values: Mapping[Path, np.ndarray]) -> Any:
    """Writes a whole checkpoint in the diffusers layout, float32, with other values in the UNet.

    Args:
        folder: an empty one.
        origin: what was trained from.
        values: by path.

    Returns:
        The UNet, in host memory.

    Raises:
        HotshotError: the source is gone.
    """
    checkpoint = open_checkpoint(origin.source)
    for name in KINDS:
        component: Any = getattr(checkpoint, name)
        if name == "unet" and origin.unet_path is not None:
            component = open_component(origin.unet_path, name)
        module = prepare_component(component, dtype=jnp.float32).load(shardings=in_host_memory())
        if name == "unet":
            unet = module = with_parameters(module, {**flat_parameters(module), **values})
        write_component(folder / name, name, component.config, module)
    copy_small_files(checkpoint.path, folder)
    (folder / "model_index.json").write_text(json.dumps(dict(checkpoint.index), indent=2) + "\n")
    if origin.scheduler_config is not None:
        text = json.dumps(dict(origin.scheduler_config), indent=2) + "\n"
        (folder / "scheduler" / "scheduler_config.json").write_text(text, encoding="utf-8")
    return unet


TEMPORAL_FILE = "hsxl_temporal_layers.safetensors"

# The order in which PyTorch lists the parts of a module where it is not that of the alphabet.
_ORDER = (
    "conv_in time_embedding add_embedding down_blocks up_blocks mid_block conv_norm_out conv_out "
    "attentions resnets temporal_attentions downsamplers upsamplers "
    "norm proj_in transformer_blocks attention_blocks norms "
    "norm1 conv1 time_emb_proj norm2 conv2 conv_shortcut "
    "attn1 attn2 to_q to_k to_v to_out ff ff_norm norm3 proj_out weight bias"
).split()
_PLACES = {name: place for place, name in enumerate(_ORDER)}
# Inside a spatial transformer block the norms stand between the attentions.
_BLOCK_PLACES = {
    name: place for place, name in enumerate(("norm1", "attn1", "norm2", "attn2", "norm3", "ff"))
}
_SPATIAL_BLOCK = re.compile(rf"(?<!{TEMPORAL}\.\d\.)transformer_blocks\.\d+\.")


def is_trained(path: Path, selection: str) -> bool:
    """Whether a parameter trains.

    Args:
        path: of the parameter.
        selection: "temporal" for the temporal layers, as the reference does, "spatial" for all
            others, "unet" for both.

    Raises:
        UsageError: the selection is unknown.
    """
    if selection not in SELECTIONS:
        raise UsageError(f"`train` {selection} is unknown; expected {', '.join(SELECTIONS)}.")
    return selection == "unet" or (TEMPORAL in path) == (selection == "temporal")


def trained_names(module: nnx.Module, selection: str) -> list[str]:
    """PyTorch's names of the tensors that train, in the order of the reference's list."""
    slots = [slot for slot in torch_slots(module).values() if is_trained(slot.path, selection)]
    return [slot.name for slot in sorted(slots, key=_place)]


def _place(slot: Slot) -> list[tuple[int, int, str]]:
    in_block = _SPATIAL_BLOCK.search(slot.name)
    start = in_block.end() if in_block else -1
    keys, position = [], 0
    for part in slot.name.split("."):
        places = _BLOCK_PLACES if position == start else _PLACES
        number = int(part) if part.isdigit() else places.get(part, len(_ORDER))
        keys.append((number, 0, part if number == len(_ORDER) else ""))
        position += len(part) + 1
    return keys


@dataclasses.dataclass(frozen=True)
class Division:
    """A model taken apart into what trains and what does not.

    Attributes:
        module: the model, with shapes in place of arrays.
        paths: the path of every parameter, by its name in `Parameters`.
        trained: names of those that train.
    """

    module: nnx.Module
    paths: Mapping[str, Path]
    trained: frozenset[str]

    @classmethod
    def of(cls, module: nnx.Module, selection: str) -> "Division":
        """Divides a (concrete or abstract) module by a selection.

        Raises:
            UsageError: the selection is unknown.
        """
        parameters = flat_parameters(module)
        paths = {"/".join(map(str, path)): path for path in parameters}
        trained = frozenset(name for name, path in paths.items() if is_trained(path, selection))
        shapes = {
            path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for path, leaf in parameters.items()
        }
        return cls(with_parameters(module, shapes), paths, trained)

    def split(self, module: nnx.Module) -> tuple[Parameters, Parameters]:
        """The parameters of a module that train, as float32, and the others as they are.

        Each array that trains is a copy of its own, so that it may be given away.
        """
        values = flat_parameters(module)
        trained, frozen = {}, {}
        for name, path in self.paths.items():
            if name in self.trained:
                trained[name] = jnp.array(values[path], jnp.float32, copy=True)
            else:
                frozen[name] = values[path]
        return trained, frozen

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`; all values are the module's own."""
        del seed
        arrays = {name: np.asarray(values[path]) for name, path in self.paths.items()}
        return (
            {name: array for name, array in arrays.items() if name in self.trained},
            {name: array for name, array in arrays.items() if name not in self.trained},
        )

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """See `Trainee`."""
        by_path = parameter_shardings(self.module, mesh)
        return {name: by_path[path] for name, path in self.paths.items()}

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """See `Trainee`."""
        return {"unet": self.merge(trained, frozen)}

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """See `Trainee`: the whole checkpoint, and the temporal layers alone if there are any."""
        values = {self.paths[name]: np.asarray(leaf) for name, leaf in trained.items()}
        unet = write_checkpoint(folder, origin, values)
        tensors = module_source(unet, origin.source)
        if names := trained_names(unet, "temporal"):
            # Named and ordered as the published file has them.
            temporal = TensorSource([tensors[name] for name in names], origin.source)
            write_temporal_layers(temporal, unet.config.temporal, HOTSHOT, folder / TEMPORAL_FILE)

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The module with these parameters."""
        values = {self.paths[name]: leaf for name, leaf in {**trained, **frozen}.items()}
        return with_parameters(self.module, values)
