"""Merging LoRAs into weights: one tensor at a time, in float32, before the cast.

A LoRA consists of products of two narrow matrices, one for each of hundreds of matrices. Done step
by step in NumPy each takes four passes over arrays of the matrix's size, which are memory that is
new to the process every time; XLA makes one call of it, product, sum and cast, with nothing of that
size but its result.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.convert.tensors.half_casts import host_device, to_dtype
from hotshot_jax.convert.tensors.rules import Path, Slot
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora.changes import Added, Change, LowRank
from hotshot_jax.lora.read import Lora

Scaled = Sequence[tuple[Lora, float]]
"""LoRAs and their strengths; at strength 0 a LoRA is off."""


def merged_source(base: TensorSource, component: str, loras: Scaled) -> TensorSource:
    """A component's tensors with LoRAs merged in when they are read.

    Tensors that no LoRA changes are the base's own, bit for bit. The others are computed from the
    base each time, so changing a strength is reading the changed tensors again from a new merge;
    what has been merged before leaves no trace.

    Args:
        base: the component's tensors under the model's names.
        component: "unet", "text_encoder" or "text_encoder_2".
        loras: LoRAs and strengths; several add up.

    Returns:
        The same names and shapes; changed tensors are float32.

    Raises:
        HotshotError: a LoRA changes a tensor that `base` lacks.
        UsageError: a strength is not finite.
    """
    changes = scaled_changes(component, loras)
    lacking = [name for name in changes if name not in base]
    if lacking:
        raise HotshotError(
            f"{base.path}: {lacking[0]} is not in it, but a LoRA changes it; load the LoRA for the "
            "model that is used."
        )
    tensors = (
        _merged(tensor, changes[name]) if name in changes else tensor
        for name, tensor in base.items()
    )
    return TensorSource(tensors, base.path, base.metadata)


def merge(
    parameters: Mapping[str, np.ndarray], component: str, loras: Scaled
) -> dict[str, np.ndarray]:
    """The tensors that LoRAs change, merged; for scripts that have them in memory.

    Args:
        parameters: a component's tensors in PyTorch's names and layout; left as they are.
        component: "unet", "text_encoder" or "text_encoder_2".
        loras: LoRAs and strengths; several add up.

    Returns:
        Float32 arrays, for the changed names only.

    Raises:
        KeyError: a LoRA changes a tensor that `parameters` lacks.
        UsageError: a strength is not finite.
    """
    return {
        name: merge_tensor(parameters[name], changes)
        for name, changes in scaled_changes(component, loras).items()
    }


def merge_tensor(
    weight: np.ndarray, changes: Sequence[tuple[Change, float]], dtype: Any = np.float32
) -> np.ndarray:
    """One tensor with changes at their strengths added, in float32 and then cast.

    Args:
        weight: in PyTorch's layout, of any floating-point type.
        changes: changes and strengths.
        dtype: of the result.

    Returns:
        A new array, which may be read-only.
    """
    factors = joined_factors(changes)
    merged = None if factors is None else add_product(weight, factors, dtype)
    if merged is not None:
        return merged
    base = to_dtype(np.asarray(weight), np.float32)
    merged = base.copy()
    for change, scale in changes:
        merged += change.apply(base, scale)
    return to_dtype(merged, dtype)


def scaled_changes(component: str, loras: Scaled) -> dict[str, list[tuple[Change, float]]]:
    """The changes of a component's tensors with their strengths, LoRAs at strength 0 left out.

    Raises:
        UsageError: a strength is not finite.
    """
    changes: dict[str, list[tuple[Change, float]]] = {}
    for lora, scale in loras:
        if not math.isfinite(scale):
            raise UsageError(f"{lora.path}: a LoRA's scale must be a finite number, not {scale}.")
        if scale == 0:
            continue
        for name, group in lora.changes.get(component, {}).items():
            changes.setdefault(name, []).extend((change, scale) for change in group)
    return changes


def changed_paths(slots: Mapping[str, Slot], component: str, loras: Scaled) -> set[Path]:
    """The parameters of a component that LoRAs change at any strength, by path.

    Args:
        slots: where each of PyTorch's tensors goes (`convert.rules.torch_slots`).
        component: "unet", "text_encoder" or "text_encoder_2".
        loras: LoRAs and strengths; also those at strength 0 count.
    """
    return {slots[name].path for lora, _ in loras for name in lora.names(component)}


def _merged(tensor: LazyTensor, changes: Sequence[tuple[Change, float]]) -> LazyTensor:
    return dataclasses.replace(
        tensor,
        dtype=np.dtype(np.float32),
        reader=lambda: merge_tensor(tensor.read(), changes),
        reader_as=lambda dtype: merge_tensor(tensor.read(), changes, dtype),
    )


# Below this many values, compiling a program takes longer than NumPy takes for a few hundred.
_SMALLEST = 1 << 16
# Ranks are filled up with zeros to powers of two from here on, so that few programs are compiled
# for a file with a rank of its own for every matrix.
_LEAST_RANK = 16


def joined_factors(
    changes: Sequence[tuple[Change, float]],
) -> tuple[np.ndarray, np.ndarray] | None:
    """Changes of one weight as a single product of two narrow matrices.

    Args:
        changes: changes and strengths.

    Returns:
        `[out, rank]` and `[rank, in ...]` (later axes as one), float32, strengths multiplied in and
        the ranks of several changes beside each other; None where a change is no such product.
    """
    ups, downs = [], []
    for change, scale in changes:
        product = change.difference if isinstance(change, Added) else None
        if not isinstance(product, LowRank) or product.mid is not None:
            return None
        up, down = (np.asarray(each, np.float32) for each in (product.up, product.down))
        ups.append(up.reshape(len(up), -1) * np.float32(product.scaling * scale))
        downs.append(down.reshape(len(down), -1))
    return np.concatenate(ups, 1), np.concatenate(downs, 0)


def add_product(
    weight: np.ndarray, factors: tuple[np.ndarray, np.ndarray], dtype: Any
) -> np.ndarray | None:
    """The weight and the product of two matrices, computed in float32 and rounded once.

    Args:
        weight: `[out, in ...]`, of any floating-point type, in any order.
        factors: `[out, rank]` and `[rank, in ...]` (later axes as one), float32.
        dtype: of the result.

    Returns:
        An array of the weight's shape that may be read-only; None where NumPy is to do it: for
        small weights, and where no program can run on the host.
    """
    device = host_device()
    if weight.size < _SMALLEST or device is None:
        return None
    matrix = weight.reshape(len(weight), -1)
    # Parameters of a model seen in PyTorch's layout: in their own order nothing is moved.
    flipped = matrix.flags.f_contiguous and not matrix.flags.c_contiguous
    up, down = factors
    rank = len(down)
    missing = max(_LEAST_RANK, 1 << (rank - 1).bit_length()) - rank
    if missing:
        up, down = np.pad(up, ((0, 0), (0, missing))), np.pad(down, ((0, missing), (0, 0)))
    operands = (matrix.T, down.T, up.T) if flipped else (matrix, up, down)
    merged = np.asarray(_program(np.dtype(dtype))(*jax.device_put(operands, device)))
    return (merged.T if flipped else merged).reshape(weight.shape)


@functools.cache
def _program(dtype: np.dtype[Any]) -> Any:
    # The factors come as float32: casts and strengths in here would double the time to compile.
    def merged(matrix: jax.Array, left: jax.Array, right: jax.Array) -> jax.Array:
        product = jnp.dot(left, right, precision=jax.lax.Precision.HIGHEST)
        return (matrix.astype(jnp.float32) + product).astype(dtype)

    return jax.jit(merged)
