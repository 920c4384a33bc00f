"""Where the inputs of a program go on the mesh, so that nothing is moved before the first layer."""

import math
from collections.abc import Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding, SingleDeviceSharding

from hotshot_jax.models.layers.sharding_points import (
    BATCH_AXES,
    FRAME_AXES,
    TENSOR_AXES,
    split_over,
)
from hotshot_jax.parallel.rules import state_shardings

Module = TypeVar("Module", bound=nnx.Module)


def whole(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def video_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of latents or pixels `[batch, frames, ...]`: samples and frames split where they divide."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        axes = split_over(shape[0], BATCH_AXES), split_over(shape[1], FRAME_AXES)
    return NamedSharding(mesh, PartitionSpec(*axes))


def features_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of features `[..., batch, frames, height, width, channels]`: as of the latents they go with.

    Whole where there are fewer axes.
    """
    before = len(shape) - 5
    if before < 0:
        return whole(mesh)
    axes = video_sharding(mesh, shape[before:]).spec
    return NamedSharding(mesh, PartitionSpec(*[None] * before, *axes))


def batch_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of what there is one of for each sample, `[batch, ...]`."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return NamedSharding(mesh, PartitionSpec(split_over(shape[0], BATCH_AXES)))


def batch_devices(mesh: Mesh | None) -> int:
    """Over how many devices a batch is split."""
    return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def image_sharding(mesh: Mesh) -> NamedSharding:
    """Of images `[images, ...]` that need nothing of each other: split over all devices."""
    return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def held_rows(mesh: Mesh, rows: int, process: int) -> tuple[int, ...]:
    """Which rows of a batch the devices of a process hold, ascending.

    They need not lie side by side, as devices of a mesh do not stand in the order of their hosts;
    and where frames or heads are split over several hosts, these hold the same.

    Args:
        mesh: the mesh.
        rows: of the batch.
        process: its index.
    """
    # JAX's type of devices does not say what they have.
    indices: Mapping[Any, Any] = batch_sharding(mesh, (rows,)).devices_indices_map((rows,))
    held = {
        row
        for device, (index,) in indices.items()
        if device.process_index == process
        for row in range(rows)[index]
    }
    return tuple(sorted(held))


def projected_text_shardings(mesh: Mesh, text: Any) -> Any:
    """Of the contexts that a UNet or ControlNet projects from the text.

    Args:
        mesh: the mesh.
        text: a `ProjectedText` of arrays or their shapes.

    Returns:
        The same tree with a sharding for each array.
    """

    def sharding(leaf: Any) -> NamedSharding:
        _, batch, frames, *rest = leaf.shape
        axes = [None, split_over(batch, BATCH_AXES), split_over(frames, FRAME_AXES)]
        if rest:
            _, heads, _ = rest
            axes += [None, split_over(heads, TENSOR_AXES)]
        return NamedSharding(mesh, PartitionSpec(*axes))

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.tree.map(sharding, text)


def in_host_memory() -> SingleDeviceSharding:
    """Of what waits in this host's main memory."""
    return SingleDeviceSharding(jax.local_devices(backend="cpu")[0])


def place(array: Any, sharding: Sharding) -> jax.Array:
    """Puts an array on the mesh.

    What is not there yet has to be the same on all hosts; each takes the parts of its devices.

    Args:
        array: a scalar, NumPy array or JAX array.
        sharding: where it goes.
    """
    if isinstance(array, jax.Array) and array.sharding.device_set == sharding.device_set:
        return jax.device_put(array, sharding)
    whole_array = np.asarray(array)
    return jax.make_array_from_callback(
        whole_array.shape, sharding, lambda index: np.asarray(whole_array[index])
    )


def place_missing(tree: Any, mesh: Mesh) -> Any:
    """The tree with copies on all devices of those arrays that are not on the mesh yet.

    Shapes that stand for arrays (`jax.ShapeDtypeStruct`) stay what they are.
    """

    def placed(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if isinstance(leaf, jax.Array) and isinstance(leaf.sharding, NamedSharding):
            return leaf
        return place(leaf, whole(mesh))

    return jax.tree.map(placed, tree)


def place_module(module: Module, mesh: Mesh) -> Module:
    """The module with its parameters where the sharding rules want them."""
    graph, state = nnx.split(module)
    return nnx.merge(graph, jax.tree.map(place, state, state_shardings(module, mesh)))


def on_host(tree: Any) -> Any:
    """The whole arrays of a tree, as NumPy's.

    Where an array reaches over several hosts, all of them have to call it together.
    """

    def gathered(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            from jax.experimental import multihost_utils

            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(gathered, tree)
