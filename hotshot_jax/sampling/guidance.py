"""Guidance: joining what the model predicts for the negative prompt and for the prompt."""

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.conditioning.key_frames import numbers_by_frame
from hotshot_jax.sampling.predict import StepInput
from hotshot_jax.sampling.request import Request


class Guidance(Protocol):
    """Joins the two predictions of each video, within a compiled step.

    A pytree (`jax.tree_util.register_dataclass`), so that its numbers can change without another
    program.
    """

    def __call__(
        self, unconditional: jax.Array, conditional: jax.Array, step: StepInput
    ) -> jax.Array:
        """The guided prediction.

        Args:
            unconditional: prediction for the negative prompt, float32
                `[videos, frames, height, width, channels]`.
            conditional: prediction for the prompt, likewise.
            step: what changes from call to call.
        """
        ...


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClassifierFreeGuidance:
    """Classifier-free guidance, with contrast correction.

    Attributes:
        scale: weight of the guidance, float32: a scalar, or `[frames, 1, 1, 1]`.
        rescale: factor of the contrast correction, float32 scalar; 0 for none. None has none
            compiled: a program with a choice in it takes the compiler a tenth longer on CPUs.
    """

    scale: jax.Array
    rescale: jax.Array | None

    @classmethod
    def of(cls, request: Request) -> "ClassifierFreeGuidance":
        """The guidance that a request asks for."""
        scale = request.guidance_scale
        if isinstance(scale, Mapping):
            numbers = numbers_by_frame(scale, request.video_length, closed=request.closed)
            weights = numbers[:, None, None, None]
        else:
            weights = np.asarray(scale, np.float32)
        rescale = request.guidance_rescale
        given = weights, np.asarray(rescale, np.float32) if rescale else None
        return cls(*jax.device_put(given))

    def __call__(
        self, unconditional: jax.Array, conditional: jax.Array, step: StepInput
    ) -> jax.Array:
        """See `Guidance`."""
        del step
        guided = classifier_free_guidance(unconditional, conditional, self.scale)
        rescale = self.rescale
        if rescale is None:
            return guided
        return jax.lax.cond(
            rescale > 0,
            lambda guided: rescale_guidance(guided, conditional, rescale),
            lambda guided: guided,
            guided,
        )


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
