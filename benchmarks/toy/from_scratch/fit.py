"""Fitting all parameters of a module to batches from the host; for models of a few megabytes."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from hotshot_jax.convert.load import read_ahead
from hotshot_jax.errors import HotshotError

Loss = Callable[[Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]]
"""From parameters, a batch and a random key to the loss and further numbers."""

Report = Callable[[int, Mapping[str, float]], None]
"""Takes the numbers of a step, the steps counted from 1."""

_BATCHES_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """How parameters are fitted.

    Attributes:
        steps: updates.
        learning_rate: after the warm-up; it then falls to zero along a cosine.
        warmup_steps: updates until it is reached.
        max_grad_norm: norm of the gradients above which they are scaled down.
        average_decay: of the moving average that is returned in place of the last parameters.
        seed: of all random numbers.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 100
    max_grad_norm: float = 1.0
    average_decay: float = 0.99
    seed: int = 0


def fit(
    loss: Loss, parameters: Any, batch_of: Callable[[int], Any], config: FitConfig, report: Report
) -> Any:
    """Minimises a loss by AdamW.

    Args:
        loss: see `Loss`.
        parameters: where to start; any pytree of float32 arrays.
        batch_of: makes the batch of a step on the host; called ahead, in other threads.
        config: how.
        report: takes the numbers of each step.

    Returns:
        The moving average of the parameters.

    Raises:
        HotshotError: the loss is not finite.
    """
    rate = optax.warmup_cosine_decay_schedule(
        0.0, config.learning_rate, config.warmup_steps, config.steps
    )
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.max_grad_norm), optax.adamw(rate, weight_decay=1e-4)
    )
    key = jax.random.key(config.seed)

    @jax.jit
    def update(parameters: Any, average: Any, state: Any, batch: Any, step: jax.Array) -> Any:
        gradient = jax.value_and_grad(loss, has_aux=True)
        (value, numbers), gradients = gradient(parameters, batch, jax.random.fold_in(key, step))
        updates, state = optimizer.update(gradients, state, parameters)
        parameters = optax.apply_updates(parameters, updates)
        # Early on the average follows closely, or it would remember the initial values.
        decay = jnp.minimum(config.average_decay, (1.0 + step) / (10.0 + step))
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), average, parameters)
        return parameters, average, state, {"loss": value, **numbers, "learning_rate": rate(step)}

    average, state = parameters, optimizer.init(parameters)
    for step, batch in enumerate(read_ahead(batch_of, range(config.steps), depth=_BATCHES_AHEAD)):
        parameters, average, state, numbers = update(
            parameters, average, state, batch, jnp.int32(step)
        )
        fetched = {name: float(value) for name, value in jax.device_get(numbers).items()}
        if not math.isfinite(fetched["loss"]):
            raise HotshotError(
                f"The loss is {fetched['loss']} at step {step + 1}: use a lower learning_rate."
            )
        report(step + 1, fetched)
    return average
