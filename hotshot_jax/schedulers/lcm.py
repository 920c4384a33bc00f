"""Latent consistency sampling (Luo et al. 2023, arXiv:2310.04378).

The model jumps to x_0 in every call, blended with the sample by the boundary condition, and is
noised again to the next timestep of the run:

    D  = c_out x_0 + c_skip x,   c_skip = a²/(τ² + a²),   c_out = τ/sqrt(τ² + a²),   a = 1/2
    x' = sqrt(ā') D + sqrt(1 - ā') z

with τ = timestep · timestep_scaling. The last call returns D and draws no noise. Timesteps are
picked from the `original_inference_steps` on which the model was distilled.
"""

import dataclasses

import numpy as np

from hotshot_jax.choices import SPACINGS
from hotshot_jax.schedulers.base import Schedule
from hotshot_jax.schedulers.configuration import option, unsupported
from hotshot_jax.schedulers.families import AncestralRow, AncestralScheduler
from hotshot_jax.schedulers.noise_schedule import BETA_SCHEDULES
from hotshot_jax.schedulers.numbers import denoised_weights

SIGMA_DATA = 0.5


@dataclasses.dataclass(frozen=True)
class LCMScheduler(AncestralScheduler):
    """Latent consistency sampling; see the module docstring.

    Attributes:
        timestep_spacing: has no effect, the distillation's own spacing is used.
        original_inference_steps: steps of the distillation, and the most that can be taken.
        timestep_scaling: factor of the timestep in the boundary condition.
    """

    beta_start: float = option(0.00085, low=0, high=1)
    beta_end: float = option(0.012, low=0, high=1)
    beta_schedule: str = option("scaled_linear", choices=BETA_SCHEDULES)
    timestep_spacing: str = option("leading", choices=SPACINGS)
    original_inference_steps: int = option(50, low=1)
    timestep_scaling: float = option(10.0, low=0)
    clip_sample: bool = option(False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.original_inference_steps > self.num_train_timesteps:
            raise unsupported(
                type(self).__name__,
                "original_inference_steps",
                self.original_inference_steps,
                f"at most num_train_timesteps={self.num_train_timesteps}",
            )

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run of at most `original_inference_steps`; timesteps are int64."""
        original = self.original_inference_steps
        self._check_steps(num_inference_steps, first_step, most=original)
        stride = self.num_train_timesteps // original
        distilled = (np.arange(original, 0, -1) * stride - 1).astype(np.int64)
        picked = np.linspace(0, original, num_inference_steps, endpoint=False)
        timesteps = distilled[np.floor(picked).astype(np.int64)]

        alphas = self._alphas_at(timesteps)
        if self.prediction_type == "epsilon":
            self._require_signal(alphas)
        draws_noise = np.arange(len(timesteps)) < len(timesteps) - 1
        alphas_after = np.append(alphas[1:], 1.0)
        scaled = timesteps * self.timestep_scaling
        radius = scaled**2 + SIGMA_DATA**2
        of_sample, of_output = denoised_weights(
            self.prediction_type, np.sqrt(alphas), np.sqrt(1 - alphas)
        )
        rows = AncestralRow(
            denoised_sample=of_sample,
            denoised_output=of_output,
            denoised=np.sqrt(alphas_after) * scaled / np.sqrt(radius),
            sample=np.sqrt(alphas_after) * SIGMA_DATA**2 / radius,
            noise=np.sqrt(1 - alphas_after),
        )
        return self._make_schedule(timesteps, rows, draws_noise, first_call=first_step)
