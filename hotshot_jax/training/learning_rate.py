"""Learning-rate schedules, with the names and numbers of diffusers' `get_scheduler`."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from hotshot_jax.choices import LEARNING_RATE_SCHEDULES
from hotshot_jax.errors import UsageError

_POLYNOMIAL_END = 1e-7

Schedule = Callable[[Any], Any]
"""From the number of steps taken to the learning rate."""


def learning_rate_schedule(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """The learning rate by step.

    Args:
        name: one of `choices.LEARNING_RATE_SCHEDULES`.
        peak: the rate after the warm-up.
        warmup_steps: over which it rises in a line from 0; "constant" has no warm-up.
        total_steps: when a falling schedule ends.

    Raises:
        UsageError: the name is unknown, or a falling schedule ends before its warm-up does.
    """
    if name not in LEARNING_RATE_SCHEDULES:
        raise UsageError(
            f"`lr_scheduler` {name} is unknown; expected {', '.join(LEARNING_RATE_SCHEDULES)}."
        )
    if name == "constant":
        return lambda count: jnp.full((), peak, jnp.float32)
    if warmup_steps >= total_steps:
        raise UsageError(
            f"`lr_warmup_steps` {warmup_steps} is not shorter than the run of {total_steps} steps: "
            "the learning rate would never reach its value. Give fewer."
        )

    def schedule(count: Any) -> Any:
        count = jnp.asarray(count, jnp.float32)
        warmup = count / max(1, warmup_steps)
        fraction = (count - warmup_steps) / max(1, total_steps - warmup_steps)
        return peak * jnp.where(count < warmup_steps, warmup, _FALL[name](fraction, peak))

    return schedule


def _linear(fraction: Any, peak: float) -> Any:
    return jnp.maximum(0.0, 1 - fraction)


def _cosine(fraction: Any, peak: float) -> Any:
    return jnp.maximum(0.0, 0.5 * (1 + jnp.cos(math.pi * fraction)))


def _polynomial(fraction: Any, peak: float) -> Any:
    # Of power 1, from the peak to a fixed small rate.
    end = _POLYNOMIAL_END / peak
    return jnp.where(fraction > 1, end, (1 - end) * (1 - fraction) + end)


def _constant(fraction: Any, peak: float) -> Any:
    return jnp.ones_like(fraction)


def _cosine_with_restarts(fraction: Any, peak: float) -> Any:
    # One cycle, diffusers' default: as the cosine, but zero from its end on.
    return jnp.where(fraction >= 1, 0.0, _cosine(fraction, peak))


_FALL: dict[str, Callable[[Any, float], Any]] = {
    "linear": _linear,
    "cosine": _cosine,
    "cosine_with_restarts": _cosine_with_restarts,
    "polynomial": _polynomial,
    "constant_with_warmup": _constant,
}
