"""Merging LoRAs into weights: one tensor at a time, in float32, before the cast."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotshot_jax.convert.tensors.half_casts import to_dtype
from hotshot_jax.convert.tensors.rules import Path, Slot
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora.changes import Change
from hotshot_jax.lora.low_rank import add_product, joined_factors
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
