"""Optimisers as PyTorch users know them, on gradients clipped as PyTorch clips them."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from hotshot_jax.choices import LEARNING_RATE_SCHEDULES, OPTIMIZERS
from hotshot_jax.errors import UsageError
from hotshot_jax.training.adam_8bit import scale_by_adam_8bit
from hotshot_jax.training.layer_groups import check_factors
from hotshot_jax.training.scaling import Factors, scaled, scaled_by_schedule

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
    """An optimiser and its numbers; not every optimiser has each of them.

    Attributes:
        beta1: decay of the first moment; of Schedule-Free the share of the average in the weights
            at which gradients are taken.
        beta2: decay of the second moment.
        weight_decay: applied to every parameter that trains, biases and norms too.
        epsilon: added to the root of the second moment.
        max_grad_norm: norm of all gradients together above which they are scaled down; 0 for none.
        name: one of `choices.OPTIMIZERS`.
        learning_rate_factors: of the learning rate, by group of layers; see `factors_by_name`.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    max_grad_norm: float = 1.0
    name: str = "adamw"
    learning_rate_factors: Mapping[str, float] = dataclasses.field(default_factory=dict)

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
        if self.name not in OPTIMIZERS:
            raise UsageError(
                f"`optimizer` {self.name} is unknown; expected {', '.join(OPTIMIZERS)}."
            )
        check_factors(self.learning_rate_factors)
        if self.name == "schedule_free" and self.beta1 == 0:
            raise UsageError("`adam_beta1` is 0; schedule_free needs more, 0.9 as a rule.")


def make_optimizer(
    config: OptimizerConfig, schedule: Schedule, factors: Factors | None = None
) -> optax.GradientTransformation:
    """The transformation from gradients, already clipped, to changes of the parameters.

    Args:
        config: which it is, and its numbers.
        schedule: the learning rate by step.
        factors: of the learning rate, by name of a parameter, where it is not 1. What has 0 changes
            in no way; its gradients have to be zero.
    """
    factors = factors or {}
    optimizer = _MAKERS[config.name](config, schedule, factors)
    # Those with averages or conditions of their own may round what stands still.
    return scaled(optimizer, {name: 0.0 for name, factor in factors.items() if not factor})


def _adamw(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Loshchilov and Hutter, 2019, arXiv:1711.05101."""
    adam = optax.scale_by_adam(config.beta1, config.beta2, config.epsilon)
    return _decayed(adam, config, schedule, factors)


def _adamw_8bit(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    adam = scale_by_adam_8bit(config.beta1, config.beta2, config.epsilon)
    return _decayed(adam, config, schedule, factors)


def _lion(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Chen et al. 2023, arXiv:2302.06675."""
    lion = optax.scale_by_lion(config.beta1, config.beta2)
    return _decayed(lion, config, schedule, factors)


def _adafactor(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Shazeer and Stern 2018, arXiv:1804.04235, as PyTorch has it.

    A step is the size of the parameter times the learning rate, or one over the root of the steps
    taken where that is less; the decay of weights knows the learning rate alone.
    """

    def relative(count: Any, factor: float) -> Any:
        most = 1 / jnp.sqrt(jnp.asarray(count, jnp.float32) + 1)
        # A rate of 0, at the beginning of a warm-up, is not divided by.
        return jnp.minimum(1.0, most / jnp.maximum(factor * schedule(count), _SMALLEST_RATE))

    steps = optax.chain(
        optax.scale_by_factored_rms(min_dim_size_to_factor=1),
        optax.clip_by_block_rms(1.0),
        optax.scale_by_param_block_rms(),
        scaled_by_schedule(relative, factors),
    )
    return _decayed(steps, config, schedule, factors)


def _prodigy(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Mishchenko and Defazio 2023, arXiv:2306.06101; the learning rate is a factor of its own."""
    prodigy = optax.contrib.prodigy(
        schedule,
        (config.beta1, config.beta2),
        eps=config.epsilon,
        weight_decay=0.0 if factors else config.weight_decay,
        # Else a warm-up from 0 divides by zero.
        safeguard_warmup=True,
    )

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        if not factors:
            return prodigy.update(gradients, state, parameters)
        # As if each parameter were counted in units of its factor: the way that it has gone, its
        # gradient and its step are then those of the estimate, and its rate is the common one.
        unit = {name: factors.get(name) or 1.0 for name in gradients}
        began = state.params0
        updates, new = prodigy.update(
            {name: gradient * unit[name] for name, gradient in gradients.items()},
            state,
            {name: p0 + (parameters[name] - p0) / unit[name] for name, p0 in began.items()},
        )
        count = state.count + 1
        bias = (1 - config.beta2**count) ** 0.5 / (1 - config.beta1**count)
        decay = config.weight_decay * state.estim_lr * schedule(state.count) * bias
        return {n: unit[n] * (each - decay * parameters[n]) for n, each in updates.items()}, new

    # It remembers where parameters began, and these arrays are given away to the first step.
    return optax.GradientTransformation(
        lambda parameters: prodigy.init(jax.tree.map(jnp.copy, parameters)), update
    )


def _muon(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Jordan et al. 2024, with steps of AdamW's size (Liu et al. 2025, arXiv:2502.16982).

    Vectors, norms and tables get AdamW with Nesterov's momentum.
    """
    muon = optax.contrib.muon(
        schedule,
        weight_decay=config.weight_decay,
        adam_b1=config.beta1,
        adam_b2=config.beta2,
        adam_weight_decay=config.weight_decay,
        eps=config.epsilon,
        consistent_rms=_MUON_RMS,
        muon_weight_dimension_numbers=_matrices,
    )
    return scaled(muon, factors)


def _matrices(parameters: Any) -> Any:
    """The axes of each kernel or low-rank factor: inputs, outputs, and layers of a stack."""

    def axes(name: str, leaf: Any) -> optax.contrib.MuonDimensionNumbers | None:
        if name.rpartition("/")[2] not in _MATRICES:
            return None
        # Convolutions have height and width before their inputs.
        return optax.contrib.MuonDimensionNumbers((0, 1, 2) if leaf.ndim == 4 else (-2,), (-1,))

    return {name: axes(name, leaf) for name, leaf in parameters.items()}


def _schedule_free(
    config: OptimizerConfig, schedule: Schedule, factors: Factors
) -> optax.GradientTransformation:
    """Defazio et al. 2024, arXiv:2405.15682, on AdamW."""
    rms = optax.scale_by_rms(config.beta2, config.epsilon, eps_in_sqrt=False, bias_correction=True)
    return optax.contrib.schedule_free(
        _decayed(rms, config, schedule, factors),
        # It counts from 1.
        lambda count: schedule(count - 1),
        b1=config.beta1,
    )


def _decayed(
    scale: optax.GradientTransformation,
    config: OptimizerConfig,
    schedule: Schedule,
    factors: Factors,
) -> optax.GradientTransformation:
    steps = optax.chain(
        scale,
        optax.add_decayed_weights(config.weight_decay),
        optax.scale_by_learning_rate(schedule),
    )
    return scaled(steps, factors)


_SMALLEST_RATE = 1e-12
_MUON_RMS = 0.2
_MATRICES = ("kernel", "lora_down", "lora_up")
_MAKERS = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "lion": _lion,
    "prodigy": _prodigy,
    "muon": _muon,
    "schedule_free": _schedule_free,
}


def weights_to_show(trained: Any, state: optax.OptState) -> Any:
    """The parameters to validate and export: those that train, or what Schedule-Free averages."""
    if isinstance(state, optax.contrib.ScheduleFreeState):
        return optax.contrib.schedule_free_eval_params(state, trained)
    return trained


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
