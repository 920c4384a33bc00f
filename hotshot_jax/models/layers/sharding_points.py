"""Where activations meet a device mesh.

The models are written for one device. The few functions here say how activations lie on a mesh
with the axes `data`, `fsdp`, `frames` and `tensor`; everything between them is left to the
compiler. Without a mesh (`jax.set_mesh`) they do nothing, and an axis that does not divide what it
should split leaves it whole.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

BATCH_AXES = ("data", "fsdp")
FRAME_AXES = ("frames",)
TENSOR_AXES = ("tensor",)


def split_over(size: int, axes: Sequence[str]) -> tuple[str, ...]:
    """Those of the mesh's `axes`, taken in order, over which `size` elements divide evenly.

    Empty without a mesh. Axes of size 1 and those that an enclosing `jax.shard_map` has already
    split by are left out.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return ()
    types = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
    chosen: list[str] = []
    for axis in axes:
        if types.get(axis) != AxisType.Auto or mesh.shape[axis] == 1:
            continue
        if size % math.prod(mesh.shape[name] for name in (*chosen, axis)) == 0:
            chosen.append(axis)
    return tuple(chosen)


def image_axes(shape: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """The mesh axes over which the leading axes of images are split.

    Args:
        shape: `[batch, frames, height, width, channels]`, or `[images, height, width, channels]`
            for images that need nothing of each other, which may lie on any device.

    Returns:
        Mesh axes for each leading axis.
    """
    leading = tuple(shape[:-3])
    if len(leading) == 1:
        return (split_over(leading[0], (*BATCH_AXES, *FRAME_AXES, *TENSOR_AXES)),)
    if len(leading) == 2:
        return split_over(leading[0], BATCH_AXES), split_over(leading[1], FRAME_AXES)
    return tuple(() for _ in leading)


def image_by_image(
    function: Callable[[jax.Array, Any], jax.Array], x: jax.Array, parameters: Any
) -> jax.Array:
    """Calls `function(x, parameters)` with the part of `x` that each device holds.

    `function` must treat images one by one. It may then merge batch and frames into one axis. On
    arrays that are split along both, the compiler could express that only by gathering them: the
    images of one device are not neighbours along the merged axis.

    Args:
        function: from images and parameters to images.
        x: `[..., height, width, channels]`.
        parameters: array, module or other tree of arrays; whole on every device, but for the
            `tensor` axis, which stays the compiler's.
    """
    axes = image_axes(x.shape)
    names = {name for group in axes for name in group}
    if not names:
        return function(x, parameters)
    images = PartitionSpec(*axes)
    return jax.shard_map(
        function,
        in_specs=(images, PartitionSpec()),
        out_specs=images,
        axis_names=names,
    )(x, parameters)


def image_and_head_axes(shape: Sequence[int]) -> tuple[tuple[str, ...], ...]:
    """The mesh axes over which samples, frames and heads are split.

    Args:
        shape: `(batch, frames, tokens, heads, channels)`.
    """
    batch, frames, _, heads, _ = shape
    return (
        split_over(batch, BATCH_AXES),
        split_over(frames, FRAME_AXES),
        split_over(heads, TENSOR_AXES),
    )


def images_and_heads(
    function: Callable[..., jax.Array], query: jax.Array, key: jax.Array, value: jax.Array
) -> jax.Array:
    """Calls `function(query, key, value)` with what each device holds of them.

    For kernels that the compiler cannot divide. Samples, frames and heads are split as everywhere;
    a sample or a head that is on several devices is computed on each of them.

    Args:
        function: attends within each image and head.
        query: `[batch, frames, tokens, heads, channels]`.
        key: likewise.
        value: likewise.

    Returns:
        What the function gives, with the shape of `query`.
    """
    mesh = jax.sharding.get_abstract_mesh()
    names = {
        name
        for name, kind in zip(mesh.axis_names, mesh.axis_types, strict=True)
        if kind == AxisType.Auto
    }
    if not names:
        return function(query, key, value)
    batch, frames, heads = image_and_head_axes(query.shape)
    places = PartitionSpec(batch, frames, None, heads)
    return jax.shard_map(
        function,
        in_specs=(places, places, places),
        out_specs=places,
        axis_names=names,
        # Kernels do not say over which axes their results vary.
        check_vma=False,
    )(query, key, value)


def split_videos(x: jax.Array) -> jax.Array:
    """Says that `x`, `[batch, frames, ...]`, is split along batch and frames and nothing else.

    Where parameters are split over `fsdp`, the compiler has the choice of splitting activations
    along their channels instead, with all samples on every device. It must not.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return x
    return _constrain(x, split_over(x.shape[1], FRAME_AXES), ())


def frames_to_pixels(x: jax.Array) -> jax.Array:
    """Brings the frames of a pixel together for attention over frames: one all-to-all.

    Args:
        x: `[batch, frames, pixels, channels]`, split along frames.

    Returns:
        `x` split along pixels instead, which are padded with zeros to a number that divides.
    """
    axes = split_over(x.shape[1], FRAME_AXES)
    x = split_videos(x)
    if not axes:
        return x
    padding = -x.shape[2] % devices_of(axes)
    x = jnp.pad(x, ((0, 0), (0, 0), (0, padding), (0, 0)))
    return _constrain(x, (), axes)


def pixels_to_frames(x: jax.Array, pixels: int) -> jax.Array:
    """The inverse of `frames_to_pixels`: one all-to-all.

    Args:
        x: `[batch, frames, padded pixels, channels]`, split along pixels.
        pixels: how many of them are no padding.
    """
    axes = split_over(x.shape[1], FRAME_AXES)
    if axes:
        x = _constrain(x, (), axes)
    return split_videos(x)[:, :, :pixels]


def columns_in_parts(x: jax.Array, parts: int) -> jax.Array:
    """Divides the last axis into `parts` that lie side by side, each split over `tensor`.

    For a linear layer that computes several things at once: of each of them a device then has the
    same columns. Splitting the axis as a whole would give one device only the first of them.

    Args:
        x: `[..., columns]`, a kernel or bias.
        parts: how many things the columns are.

    Returns:
        `[..., parts, columns / parts]`.
    """
    x = x.reshape(*x.shape[:-1], parts, -1)
    axes = split_over(x.shape[-1], TENSOR_AXES)
    if not axes:
        return x
    anywhere = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 2)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(*anywhere, None, axes))


def devices_of(axes: Iterable[str]) -> int:
    """How many devices the mesh has along these axes together."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape[axis] for axis in axes)


def _constrain(x: jax.Array, frames: tuple[str, ...], pixels: tuple[str, ...]) -> jax.Array:
    batch = split_over(x.shape[0], BATCH_AXES)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(batch, frames, pixels))
