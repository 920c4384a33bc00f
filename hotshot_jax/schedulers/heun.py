"""Heun's second-order method (Karras et al. 2022, arXiv:2206.00364, algorithm 1 without churn).

A step from σ to σ' takes two calls, with slope d(x, σ) = (x - D(x, σ))/σ:

    x̃  = x + (σ' - σ) d(x, σ)
    x'  = x + (σ' - σ) (d(x, σ) + d(x̃, σ'))/2

The last step, to σ' = 0, is Euler's alone, so n steps are 2n - 1 calls. No noise is drawn.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.schedulers.base import Column, Schedule, float32, zeros_like_sample
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


class HeunRow(NamedTuple):
    """One call.

    The model's input is input_scale · x; D = denoised_sample · x + denoised_output · m;
    d = (x - D)/sigma; x' = base · x_before + sample · x + denoised · D + slope · d_before.
    """

    input_scale: Column
    denoised_sample: Column
    denoised_output: Column
    sigma: Column
    base: Column
    sample: Column
    denoised: Column
    slope: Column


class HeunState(NamedTuple):
    """Slope and sample of the call before; float32, the shape of the sample."""

    slope: jax.Array
    sample: jax.Array


@dataclasses.dataclass(frozen=True)
class HeunDiscreteScheduler(ExplodingScheduler, SigmaScheduler):
    """Heun's method; see the module docstring.

    Attributes:
        clip_sample: clip D to ± clip_sample_range.
        rescale_betas_zero_snr: as in `EulerDiscreteScheduler`; diffusers' class has no such option
            and would sample such a model on the wrong noise levels.
    """

    beta_start: float = option(0.00085, low=0, high=1)
    beta_end: float = option(0.012, low=0, high=1)
    clip_sample: bool = option(False)
    clip_sample_range: float = option(1.0, low=0)

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run of 2n - 1 calls; see `Scheduler.schedule`. Timesteps are float32."""
        self._check_steps(num_inference_steps, first_step)
        steps = num_inference_steps
        training = training_sigmas(self.noise_schedule)
        timesteps = evenly_spaced(
            self.timestep_spacing, steps, self.num_train_timesteps, self.steps_offset
        ).astype(np.float32)
        levels = np.interp(timesteps, np.arange(len(training)), training)
        designed = self._designed_sigmas(levels[0], levels[-1], steps)
        if designed is not None:
            levels = designed
            timesteps = sigma_to_timestep(levels, np.log(training)).astype(np.float32)

        # Calls: trial step from level 0, correction at level 1, trial step from level 1, ...
        at_call = np.repeat(np.arange(steps), 2)[1:]
        sigmas = np.append(levels[at_call], 0.0).astype(np.float32)
        current = sigmas[:-1].astype(np.float64)
        correcting = np.arange(len(current)) % 2 == 1
        strides = np.diff(sigmas.astype(np.float64))
        strides = np.where(correcting, np.roll(strides, 1), strides)
        of_sample, of_output = exploding_denoised_weights(self.prediction_type, current)
        pull = strides / current * np.where(correcting, 0.5, 1.0)
        rows = HeunRow(
            input_scale=alpha_and_sigma(current)[0],
            denoised_sample=of_sample,
            denoised_output=of_output,
            sigma=current,
            base=correcting,
            sample=pull + ~correcting,
            denoised=-pull,
            slope=np.where(correcting, strides / 2, 0.0),
        )
        first_level = init_noise_sigma(sigmas, self.timestep_spacing)
        step_of_call = np.arange(len(current)) // 2
        return self._make_schedule(
            timesteps[at_call], rows, False, sigmas, first_level, step_of_call, 2 * first_step
        )

    def init_state(self, sample: ArrayLike) -> HeunState:
        """No call yet."""
        return HeunState(zeros_like_sample(sample), zeros_like_sample(sample))

    def step(
        self,
        row: HeunRow,
        state: HeunState,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, HeunState]:
        """A trial step or its correction; see `Scheduler.step`."""
        x = float32(sample)
        denoised = row.denoised_sample * x + row.denoised_output * float32(model_output)
        if self.clip_sample:
            denoised = jnp.clip(denoised, -self.clip_sample_range, self.clip_sample_range)
        following = row.base * state.sample + row.sample * x
        following += row.denoised * denoised + row.slope * state.slope
        return following, HeunState((x - denoised) / row.sigma, x)
