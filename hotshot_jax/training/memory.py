"""How much device memory training takes, by component."""

from collections.abc import Mapping
from typing import Any

import jax

from hotshot_jax.models.activation_memory import training_bytes
from hotshot_jax.models.layers.attention_choice import Accelerator
from hotshot_jax.pipelines.memory import describe_size, held_bytes


def training_memory(
    state: Any,
    frozen: Mapping[str, Any],
    unet: Any,
    shape: tuple[int, ...],
    rematerialisation: str,
) -> dict[str, int]:
    """What training needs of one device, in bytes by component.

    Args:
        state: a `TrainState` of arrays or their shapes.
        frozen: parameters that do not train.
        unet: the model, for its shape and the dtype that it computes in.
        shape: of the latents of a batch on one device, `(batch, frames, height, width, channels)`.
        rematerialisation: see `rematerialise`.
    """
    trained = _bytes(state.trained)
    parts = {
        "trained weights": trained,
        "frozen weights": _bytes(frozen),
        "gradients": trained + _bytes(state.gathered),
        "optimiser": _bytes(state.optimizer),
        "moving average": _bytes(state.average),
        "activations": training_bytes(
            unet.config, shape, unet.dtype, Accelerator.current(), rematerialisation
        ),
    }
    return {name: size for name, size in parts.items() if size}


def describe_training_memory(parts: Mapping[str, int]) -> str:
    """The components, in words."""
    listed = ", ".join(f"{name} {describe_size(size)}" for name, size in parts.items())
    return f"memory of each device: about {describe_size(sum(parts.values()))} ({listed})"


def _bytes(tree: Any) -> int:
    return sum(held_bytes(leaf) for leaf in jax.tree.leaves(tree))
