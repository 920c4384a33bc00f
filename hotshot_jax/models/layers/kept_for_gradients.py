"""What layers keep between a forward pass and its gradients."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from hotshot_jax.models.layers.attention_choice import Accelerator


def keep_inputs_only(function: Callable[..., jax.Array], *arrays: jax.Array) -> jax.Array:
    """Runs a function whose gradients compute it once more, from its inputs.

    Norms, gates and softmax work in float32 inside. Left to itself, differentiation keeps what they
    compute there, several times the bytes of the bfloat16 arrays that they started from, and memory
    traffic is what a training step spends most of its time on. Gradients are the same.

    Only on accelerators and in bfloat16; elsewhere nothing is computed twice.

    Args:
        function: of arrays alone.
        *arrays: its inputs; the first one's dtype decides.

    Returns:
        `function(*arrays)`.
    """
    if arrays[0].dtype != jnp.bfloat16 or Accelerator.current().platform == "cpu":
        return function(*arrays)
    # Stacks of blocks run in loops, and their gradients in others: nothing there is merged with
    # what it repeats, and barriers against it would make copies of what the loops pass on.
    return jax.checkpoint(function, prevent_cse=False)(*arrays)
