"""Classifier-free guidance."""

import jax
import jax.numpy as jnp


def classifier_free_guidance(
    unconditional: jax.Array, conditional: jax.Array, scale: jax.Array
) -> jax.Array:
    """Moves from the unconditional to the conditional prediction and on.

    Ho and Salimans, 2022 (https://arxiv.org/abs/2207.12598), in Imagen's form (equation 2 of
    https://arxiv.org/abs/2205.11487): u + w (c - u).

    Args:
        unconditional: prediction for the negative prompt, any shape.
        conditional: prediction for the prompt, likewise.
        scale: w.
    """
    return unconditional + scale * (conditional - unconditional)


def rescale_guidance(guided: jax.Array, conditional: jax.Array, factor: jax.Array) -> jax.Array:
    """Gives a guided prediction back some of the contrast of the conditional one.

    Lin et al., 2023 (https://arxiv.org/abs/2305.08891, equations 15 and 16). The standard
    deviations are the unbiased ones, each over all axes but the first.

    Args:
        guided: `[videos, ...]`.
        conditional: likewise.
        factor: phi; 0 changes nothing, 1 takes over the conditional's standard deviation.
    """
    axes = tuple(range(1, guided.ndim))
    deviation = jnp.std(conditional, axes, keepdims=True, ddof=1)
    guided_deviation = jnp.std(guided, axes, keepdims=True, ddof=1)
    return guided * (factor * deviation / guided_deviation + (1 - factor))
