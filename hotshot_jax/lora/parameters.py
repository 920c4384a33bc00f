"""Merging LoRAs into parameters that are in memory, in the layout of the models here.

For checkpoints that have no PyTorch tensors to read again. The base values must come from before
any merge; nothing is ever subtracted, so strengths can change for ever without drift.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hotshot_jax.convert.tensors.rules import Path, Slot
from hotshot_jax.lora.merge import Scaled, merge_tensor, scaled_changes


def changed_paths(slots: Mapping[str, Slot], component: str, loras: Scaled) -> set[Path]:
    """The parameters of a component that LoRAs change at any strength, by path.

    Args:
        slots: where each of PyTorch's tensors goes (`convert.rules.torch_slots`).
        component: "unet", "text_encoder" or "text_encoder_2".
        loras: LoRAs and strengths; also those at strength 0 count.
    """
    return {slots[name].path for lora, _ in loras for name in lora.names(component)}


def merged_parameters(
    base: Mapping[Path, Any], slots: Mapping[str, Slot], component: str, loras: Scaled
) -> dict[Path, np.ndarray]:
    """The parameters of a component that LoRAs change, merged.

    Layers that are stacked in one parameter are merged one by one.

    Args:
        base: parameters without LoRAs, by path; those of `changed_paths` at least.
        slots: where each of PyTorch's tensors goes.
        component: "unet", "text_encoder" or "text_encoder_2".
        loras: LoRAs and strengths; several add up.

    Returns:
        New arrays: float32 for parameters that change, the base's own values and dtype for those
        whose LoRAs are all at strength 0.

    Raises:
        UsageError: a strength is not finite.
    """
    changes = scaled_changes(component, loras)
    merged: dict[Path, np.ndarray] = {}
    for path in changed_paths(slots, component, loras):
        value = np.asarray(base[path])
        of_path = [slots[name] for name in changes if slots[name].path == path]
        merged[path] = value.astype(np.float32) if of_path else value.copy()
        for slot in of_path:
            tensor = merge_tensor(slot.to_torch(value), changes[slot.name])
            target = merged[path] if slot.layer is None else merged[path][slot.layer]
            target[...] = slot.to_flax(tensor)
    return merged
