"""Where the inputs of a program go on the mesh, so that nothing is moved before the first layer."""

from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.models.sharding_points import BATCH_AXES, FRAME_AXES, TENSOR_AXES, split_over


def whole(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def video_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of latents or pixels `[batch, frames, ...]`: samples and frames split where they divide."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        axes = split_over(shape[0], BATCH_AXES), split_over(shape[1], FRAME_AXES)
    return NamedSharding(mesh, PartitionSpec(*axes))


def batch_sharding(mesh: Mesh, shape: tuple[int, ...]) -> NamedSharding:
    """Of what there is one of for each sample, `[batch, ...]`."""
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return NamedSharding(mesh, PartitionSpec(split_over(shape[0], BATCH_AXES)))


def projected_text_shardings(mesh: Mesh, text: Any) -> Any:
    """Of the keys and values that a UNet or ControlNet projects from the text.

    Args:
        mesh: the mesh.
        text: a `ProjectedText` of arrays or their shapes.

    Returns:
        The same tree with a sharding for each array.
    """

    def sharding(leaf: Any) -> NamedSharding:
        if len(leaf.shape) != 5:
            return whole(mesh)
        _, batch, _, heads, _ = leaf.shape
        axes = split_over(batch, BATCH_AXES), None, split_over(heads, TENSOR_AXES)
        return NamedSharding(mesh, PartitionSpec(None, *axes))

    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        return jax.tree.map(sharding, text)
