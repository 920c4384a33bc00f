"""Ancestral sampling with Euler steps (diffusers' EulerAncestralDiscreteScheduler).

The sampler of k-diffusion (Crowson) for the ancestral process of DDPM (arXiv:2006.11239) in the
picture x = x_0 + σ ε. A step from σ to σ' goes down to σ_down on the ODE and adds fresh noise:

    σ_up²   = σ'² (σ² - σ'²)/σ²,      σ_down² = σ'² - σ_up² = (σ'²/σ)²
    x'      = (σ_down/σ) x + (1 - σ_down/σ) D + σ_up z

with D the denoised sample. The PyTorch scheduler draws z in every call; in the last, σ_up is 0.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.schedulers.base import Column, Schedule, float32, require_noise
from hotshot_jax.schedulers.families import ExplodingScheduler, exploding_denoised_weights
from hotshot_jax.schedulers.numbers import (
    alpha_and_sigma,
    evenly_spaced,
    init_noise_sigma,
    training_sigmas,
)


class EulerAncestralRow(NamedTuple):
    """The model's input is input_scale · x; x' = sample · x + output · m + noise · z."""

    input_scale: Column
    sample: Column
    output: Column
    noise: Column


@dataclasses.dataclass(frozen=True)
class EulerAncestralDiscreteScheduler(ExplodingScheduler):
    """Ancestral Euler steps; see the module docstring."""

    @property
    def stochastic(self) -> bool:
        """Noise in every call."""
        return True

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are float32."""
        self._check_steps(num_inference_steps, first_step)
        training = training_sigmas(self.noise_schedule)
        timesteps = evenly_spaced(
            self.timestep_spacing,
            num_inference_steps,
            self.num_train_timesteps,
            self.steps_offset,
        ).astype(np.float32)
        levels = np.interp(timesteps, np.arange(len(training)), training)
        sigmas = np.append(levels, 0.0).astype(np.float32)

        current, following = sigmas[:-1].astype(np.float64), sigmas[1:].astype(np.float64)
        of_sample, of_output = exploding_denoised_weights(self.prediction_type, current)
        down = (following / current) ** 2
        rows = EulerAncestralRow(
            input_scale=alpha_and_sigma(current)[0],
            sample=down + (1 - down) * of_sample,
            output=(1 - down) * of_output,
            noise=following * np.sqrt(1 - down),
        )
        first_level = init_noise_sigma(sigmas, self.timestep_spacing)
        return self._make_schedule(
            timesteps, rows, True, sigmas, first_level, first_call=first_step
        )

    def step(
        self,
        row: EulerAncestralRow,
        state: Any,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        """One ancestral step; see `Scheduler.step`."""
        following = row.sample * float32(sample) + row.output * float32(model_output)
        return following + row.noise * require_noise(noise), state
