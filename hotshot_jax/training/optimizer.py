"""AdamW as PyTorch computes it, on gradients clipped as PyTorch clips them."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hotshot_jax.choices import LEARNING_RATE_SCHEDULES
from hotshot_jax.errors import UsageError
from hotshot_jax.training.adam_8bit import scale_by_adam_8bit

_POLYNOMIAL_END = 1e-7

Schedule = Callable[[Any], Any]
"""From the number of steps taken to the learning rate."""


def learning_rate_schedule(name: str, peak: float, warmup_steps: int, total_steps: int) -> Schedule:
    """The learning rate by step, with the names and numbers of diffusers' `get_scheduler`.

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


def _cosine(fraction: Any, peak: float) -> Any:
    return jnp.maximum(0.0, 0.5 * (1 + jnp.cos(math.pi * fraction)))


def _polynomial(fraction: Any, peak: float) -> Any:
    # Of power 1, from the peak to a fixed small rate.
    end = _POLYNOMIAL_END / peak
    return jnp.where(fraction > 1, end, (1 - end) * (1 - fraction) + end)


_FALL: dict[str, Callable[[Any, float], Any]] = {
    "linear": lambda fraction, _: jnp.maximum(0.0, 1 - fraction),
    "cosine": _cosine,
    # One cycle, diffusers' default: as the cosine, but zero from its end on.
    "cosine_with_restarts": lambda fraction, peak: jnp.where(
        fraction >= 1, 0.0, _cosine(fraction, peak)
    ),
    "polynomial": _polynomial,
    "constant_with_warmup": lambda fraction, _: jnp.ones_like(fraction),
}


# PyTorch's `clip_grad_norm_` divides by the norm plus this.
_CLIP_EPSILON = 1e-6


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov and Hutter, 2019, arXiv:1711.05101).

    Attributes:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        weight_decay: applied to every parameter that trains, biases and norms too.
        epsilon: added to the root of the second moment.
        max_grad_norm: norm of all gradients together above which they are scaled down; 0 for none.
        use_8bit_adam: one byte instead of four for each moment.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    use_8bit_adam: bool = False

    def check(self) -> None:
        """Refuses values that make no sense.

        Raises:
            UsageError: names the setting.
        """
        for name, value in (("adam_beta1", self.beta1), ("adam_beta2", self.beta2)):
            if not 0 <= value < 1:
                raise UsageError(f"`{name}` is {value}; expected at least 0 and less than 1.")
        for name, value in (
            ("adam_weight_decay", self.weight_decay),
            ("adam_epsilon", self.epsilon),
            ("max_grad_norm", self.max_grad_norm),
        ):
            if not 0 <= value < float("inf"):
                raise UsageError(f"`{name}` is {value}; expected a number that is not negative.")


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """The transformation from gradients, already clipped, to changes of the parameters."""
    if config.use_8bit_adam:
        adam = scale_by_adam_8bit(config.beta1, config.beta2, config.epsilon)
    else:
        adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return optax.chain(
        adam,
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )


def without_moments(restored: optax.OptState, fresh: optax.OptState) -> optax.OptState:
    """A fresh state of the optimiser at the place in the schedule of a restored one.

    Adam's own count stays at 0: it tells how many gradients the moments were made of.
    """
    return jax.tree.map(
        lambda old, new: old if isinstance(old, optax.ScaleByScheduleState) else new,
        restored,
        fresh,
        is_leaf=lambda node: isinstance(node, optax.ScaleByScheduleState),
    )


def clip_by_global_norm(gradients: Any, most: float) -> tuple[Any, jax.Array]:
    """Scales gradients by min(1, most / (norm + 1e-6)); 0 leaves them as they are.

    Returns:
        The gradients, and the norm that they had.
    """
    norm = optax.tree.norm(gradients)
    if not most:
        return gradients, norm
    factor = jnp.minimum(1.0, most / (norm + _CLIP_EPSILON))
    return jax.tree.map(lambda gradient: gradient * factor, gradients), norm
