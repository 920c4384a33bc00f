"""What a call of the pipeline gives, and what it tells on its way."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.loop import AfterStep

OUTPUT_TYPES = ("np", "pil", "latent")

StepEnd = Callable[[Any, int, float, dict[str, jax.Array]], dict[str, jax.Array]]
"""Called after each step as in diffusers: `(pipeline, step, timestep, {"latents": ...})`.

Returns the dictionary, with other latents if they are to be changed.
"""


@dataclasses.dataclass(frozen=True)
class HotshotXLOutput:
    """What a call gives.

    Attributes:
        videos: `[videos, frames, height, width, 3]`, float32 in [0, 1]; a list of lists of images
            for "pil"; scaled latents `[videos, frames, height / 8, width / 8, 4]` for "latent".
    """

    videos: Any


def check_output_type(output_type: str) -> None:
    """Checks that a form of output is known.

    Raises:
        UsageError: it is not.
    """
    if output_type not in OUTPUT_TYPES:
        raise UsageError(
            f"output_type {output_type!r} is unknown; expected {', '.join(OUTPUT_TYPES)}."
        )


def after_step(pipeline: Any, callback: StepEnd | None) -> AfterStep | None:
    """A callback as the sampling loop calls it.

    Args:
        pipeline: what the callback is given.
        callback: None for none.
    """
    if callback is None:
        return None

    def changed(call: int, timestep: float, latents: jax.Array) -> jax.Array:
        given = callback(pipeline, call, timestep, {"latents": latents})
        return jnp.asarray(given["latents"], jnp.float32)

    return changed
