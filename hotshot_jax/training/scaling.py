"""Steps of an optimiser that are larger or smaller for some parameters."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import optax

Factors = Mapping[str, float]
"""By name of a parameter; those that are not named have 1."""


def scaled(
    optimizer: optax.GradientTransformation, factors: Factors
) -> optax.GradientTransformation:
    """An optimiser with its steps multiplied by factors; its state is as it was.

    Args:
        optimizer: of parameters by name.
        factors: what has 0 gets steps of exactly 0, whatever the optimiser says.
    """
    if not factors:
        return optimizer

    def update(gradients: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        updates, state = optimizer.update(gradients, state, parameters)
        return {name: _times(leaf, factors.get(name, 1.0)) for name, leaf in updates.items()}, state

    return optax.GradientTransformation(optimizer.init, update)


def scaled_by_schedule(
    size: Callable[[Any, float], Any], factors: Factors
) -> optax.GradientTransformation:
    """`optax.scale_by_schedule` that asks about each factor too.

    Args:
        size: of a step, by the number of steps taken and a parameter's factor.
        factors: of the parameters.
    """

    def update(updates: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        del parameters
        sizes = {factor: size(state.count, factor) for factor in {1.0, *factors.values()}}
        return (
            {
                name: jnp.asarray(sizes[factors.get(name, 1.0)], leaf.dtype) * leaf
                for name, leaf in updates.items()
            },
            optax.ScaleByScheduleState(optax.safe_increment(state.count)),
        )

    return optax.GradientTransformation(
        lambda _: optax.ScaleByScheduleState(jnp.zeros((), jnp.int32)), update
    )


def without(gradients: Any, factors: Factors) -> Any:
    """Gradients with zeros for what has a factor of 0."""
    return {
        name: jnp.zeros_like(x) if _still(name, factors) else x for name, x in gradients.items()
    }


def kept_still(values: Any, before: Any, factors: Factors) -> Any:
    """Parameters with what has a factor of 0 from elsewhere.

    Args:
        values: by name.
        before: where those are from that stand still.
        factors: of the parameters.
    """
    return {name: before[name] if _still(name, factors) else x for name, x in values.items()}


def _still(name: str, factors: Factors) -> bool:
    return factors.get(name, 1.0) == 0


def _times(leaf: Any, factor: float) -> Any:
    if factor == 1:
        return leaf
    return leaf * factor if factor else jnp.zeros_like(leaf)
