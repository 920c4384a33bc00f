from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.toy.from_scratch.fit import FitConfig, fit
from hotshot_jax.errors import HotshotError


def squared(parameters: Any, batch: Any, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
    error = parameters["w"] - batch
    return jnp.mean(jnp.square(error)), {"mean": jnp.mean(parameters["w"])}


def test_parameters_come_to_the_mean_of_the_batches() -> None:
    seen: list[tuple[int, Mapping[str, float]]] = []
    fitted = fit(
        squared,
        {"w": jnp.zeros(3)},
        lambda step: np.float32([1.0, -2.0, 3.0]) + np.float32(0.1 if step % 2 else -0.1),
        FitConfig(steps=300, learning_rate=0.1, warmup_steps=10),
        lambda step, numbers: seen.append((step, numbers)),
    )
    np.testing.assert_allclose(fitted["w"], [1.0, -2.0, 3.0], atol=0.05)
    assert [step for step, _ in seen] == list(range(1, 301))
    assert seen[-1][1]["loss"] < 0.05 < seen[0][1]["loss"]
    assert seen[-1][1]["learning_rate"] < 1e-4


def test_a_loss_that_is_not_finite_names_its_step() -> None:
    batches = [0.0, 0.0, float("nan"), 0.0]
    with pytest.raises(HotshotError, match="step 3"):
        fit(
            squared,
            {"w": jnp.zeros(())},
            lambda step: np.float32(batches[step]),
            FitConfig(steps=4, learning_rate=0.1, warmup_steps=1),
            lambda step, numbers: None,
        )
