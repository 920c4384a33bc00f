"""DDIM (Song et al. 2020, arXiv:2010.02502), equations 12 and 16.

    x' = sqrt(ā') x_0 + sqrt(1 - ā' - s²) ε + s z
    s  = η sqrt((1 - ā')/(1 - ā)) sqrt(1 - ā/ā')

η = 0 is deterministic, η = 1 is DDPM's ancestral sampler. ā' belongs to the timestep one whole
stride lower, which is not always the next one of the run. Noise is drawn in every call if η > 0.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.choices import SPACINGS
from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers.base import (
    DYNAMIC_THRESHOLDING,
    Column,
    Schedule,
    Scheduler,
    float32,
    require_noise,
)
from hotshot_jax.schedulers.configuration import option
from hotshot_jax.schedulers.numbers import denoised_weights, evenly_spaced, noise_weights


class DDIMRow(NamedTuple):
    """x_0 and ε from (x, m), then x' = denoised · x_0 + direction · ε + noise · z."""

    denoised_sample: Column
    denoised_output: Column
    noise_sample: Column
    noise_output: Column
    denoised: Column
    direction: Column
    noise: Column


@dataclasses.dataclass(frozen=True)
class DDIMScheduler(Scheduler):
    """DDIM; see the module docstring.

    Attributes:
        clip_sample: clip x_0 to ± clip_sample_range.
        set_alpha_to_one: the last step ends at ā' = 1, otherwise at that of timestep 0.
        eta: η in 0..1; not part of a configuration, set it by `dataclasses.replace`.
    """

    timestep_spacing: str = option("leading", choices=SPACINGS)
    clip_sample: bool = option(True)
    clip_sample_range: float = option(1.0, low=0)
    set_alpha_to_one: bool = option(True)
    eta: float = option(0.0, in_config=False)

    refused: ClassVar[Mapping[str, str]] = {"thresholding": DYNAMIC_THRESHOLDING}

    def __post_init__(self) -> None:
        if not 0 <= self.eta <= 1:
            raise UsageError(f"eta is {self.eta}; expected a number from 0 to 1.")
        super().__post_init__()

    @property
    def stochastic(self) -> bool:
        """Noise in every call if η > 0."""
        return self.eta > 0

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are int64."""
        self._check_steps(num_inference_steps, first_step)
        train_timesteps = self.num_train_timesteps
        timesteps = evenly_spaced(
            self.timestep_spacing, num_inference_steps, train_timesteps, self.steps_offset
        )
        timesteps = timesteps.round().astype(np.int64)
        previous = timesteps - train_timesteps // num_inference_steps
        alphas = self._alphas_at(timesteps)
        if self.prediction_type == "epsilon":
            self._require_signal(alphas)
        final = 1.0 if self.set_alpha_to_one else self._alphas_at(np.zeros(1, np.int64))[0]
        alphas_after = np.where(previous >= 0, self._alphas_at(previous.clip(0)), final)

        signal, noise_level = np.sqrt(alphas), np.sqrt(1 - alphas)
        variance = (1 - alphas_after) / (1 - alphas) * (1 - alphas / alphas_after)
        spread = self.eta * np.sqrt(variance.clip(0))
        denoised = denoised_weights(self.prediction_type, signal, noise_level)
        direction = noise_weights(self.prediction_type, signal, noise_level)
        rows = DDIMRow(
            *denoised,
            *direction,
            denoised=np.sqrt(alphas_after),
            direction=np.sqrt((1 - alphas_after - spread**2).clip(0)),
            noise=spread,
        )
        return self._make_schedule(timesteps, rows, self.stochastic, first_call=first_step)

    def step(
        self,
        row: DDIMRow,
        state: Any,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        """One DDIM step; see `Scheduler.step`."""
        x, output = float32(sample), float32(model_output)
        denoised = row.denoised_sample * x + row.denoised_output * output
        if self.clip_sample:
            denoised = jnp.clip(denoised, -self.clip_sample_range, self.clip_sample_range)
        direction = row.noise_sample * x + row.noise_output * output
        following = row.denoised * denoised + row.direction * direction
        if self.stochastic:
            following += row.noise * require_noise(noise)
        return following, state
