"""Euler's method on the probability flow ODE (diffusers' EulerDiscreteScheduler, without churn).

Karras et al. 2022 (arXiv:2206.00364), algorithm 1 with Heun's correction left out. In the
variance-exploding picture x = x_0 + σ ε the ODE is dx/dσ = (x - D(x, σ))/σ, where D is the denoised
sample, so

    x' = x + (σ' - σ) (x - D)/σ = (σ'/σ) x + (1 - σ'/σ) D.

D is linear in x and the model output, so a row holds two weights, worked out in float64: the
difference x - D loses all digits of D when σ is in the thousands, as after zero terminal SNR.

The model sees x / sqrt(σ² + 1). No noise is drawn.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.choices import PREDICTION_TYPES
from hotshot_jax.schedulers.base import Column, Schedule, float32
from hotshot_jax.schedulers.configuration import option
from hotshot_jax.schedulers.families import (
    ExplodingScheduler,
    SigmaScheduler,
    exploding_denoised_weights,
)
from hotshot_jax.schedulers.numbers import (
    alpha_and_sigma,
    evenly_spaced,
    init_noise_sigma,
    sigma_to_timestep,
    training_sigmas,
)


class EulerRow(NamedTuple):
    """The model's input is input_scale · x; x' = sample · x + output · m."""

    input_scale: Column
    sample: Column
    output: Column


@dataclasses.dataclass(frozen=True)
class EulerDiscreteScheduler(ExplodingScheduler, SigmaScheduler):
    """Euler steps; see the module docstring.

    Attributes:
        interpolation_type: how levels between training timesteps are found.
        timestep_type: "continuous" gives v-prediction models log(σ)/4 in place of a timestep.
        final_sigmas_type: the level after the last step: 0, or the smallest one of training.
    """

    prediction_type: str = option(
        "epsilon", choices=PREDICTION_TYPES, aliases={"original_sample": "sample"}
    )
    interpolation_type: str = option("linear", choices=("linear", "log_linear"))
    timestep_type: str = option("discrete", choices=("discrete", "continuous"))
    final_sigmas_type: str = option("zero", choices=("zero", "sigma_min"))

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are float32."""
        self._check_steps(num_inference_steps, first_step)
        steps = num_inference_steps
        training = training_sigmas(self.noise_schedule)
        timesteps = evenly_spaced(
            self.timestep_spacing, steps, self.num_train_timesteps, self.steps_offset
        ).astype(np.float32)
        if self.interpolation_type == "linear":
            levels = np.interp(timesteps, np.arange(len(training)), training)
        else:
            levels = np.exp(np.linspace(np.log(training[-1]), np.log(training[0]), steps + 1))
        designed = self._designed_sigmas(levels[0], levels[-1], steps)
        if designed is not None:
            levels = designed
            timesteps = sigma_to_timestep(levels, np.log(training)).astype(np.float32)
        last = training[0] if self.final_sigmas_type == "sigma_min" else 0.0
        sigmas = np.append(levels, last).astype(np.float32)
        if self.timestep_type == "continuous" and self.prediction_type == "v_prediction":
            timesteps = np.float32(0.25) * np.log(sigmas[:-1])

        wide = sigmas[: len(timesteps) + 1].astype(np.float64)
        of_sample, of_output = exploding_denoised_weights(self.prediction_type, wide[:-1])
        ratio = wide[1:] / wide[:-1]
        rows = EulerRow(
            input_scale=alpha_and_sigma(wide[:-1])[0],
            sample=ratio + (1 - ratio) * of_sample,
            output=(1 - ratio) * of_output,
        )
        first_level = init_noise_sigma(sigmas, self.timestep_spacing)
        return self._make_schedule(
            timesteps, rows, False, sigmas, first_level, first_call=first_step
        )

    def step(
        self,
        row: EulerRow,
        state: Any,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        """One Euler step; see `Scheduler.step`."""
        return row.sample * float32(sample) + row.output * float32(model_output), state
