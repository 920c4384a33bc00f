"""DDPM's ancestral sampler (Ho et al. 2020, arXiv:2006.11239), equations 6, 7 and 15.

With α = ā/ā' and β = 1 - α between a timestep and the next one of the run,

    x' = sqrt(ā') β/(1 - ā) x_0 + sqrt(α) (1 - ā')/(1 - ā) x + s z
    s² = (1 - ā')/(1 - ā) β   ("fixed_small")   or   β   ("fixed_large")

The PyTorch scheduler draws z in every call whose timestep is above 0, so also at timestep 1.
"""

import dataclasses

import numpy as np

from hotshot_jax.choices import SPACINGS
from hotshot_jax.schedulers.base import Schedule
from hotshot_jax.schedulers.configuration import option
from hotshot_jax.schedulers.families import AncestralRow, AncestralScheduler
from hotshot_jax.schedulers.numbers import denoised_weights, evenly_spaced


@dataclasses.dataclass(frozen=True)
class DDPMScheduler(AncestralScheduler):
    """DDPM; see the module docstring.

    Attributes:
        variance_type: which s² is taken; "fixed_small_log" is another way to compute fixed_small.
    """

    timestep_spacing: str = option("leading", choices=SPACINGS)
    variance_type: str = option(
        "fixed_small", choices=("fixed_small", "fixed_small_log", "fixed_large")
    )

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are int64."""
        self._check_steps(num_inference_steps, first_step)
        timesteps = evenly_spaced(
            self.timestep_spacing,
            num_inference_steps,
            self.num_train_timesteps,
            self.steps_offset,
        )
        timesteps = timesteps.round().astype(np.int64)
        alphas = self._alphas_at(timesteps)
        if self.prediction_type == "epsilon":
            self._require_signal(alphas)
        following = self._following(timesteps)
        alphas_after = np.where(following >= 0, self._alphas_at(following.clip(0)), 1.0)
        kept = alphas / alphas_after
        small = (1 - alphas_after) / (1 - alphas) * (1 - kept)
        variance = 1 - kept if self.variance_type == "fixed_large" else small.clip(1e-20)
        draws_noise = timesteps > 0
        of_sample, of_output = denoised_weights(
            self.prediction_type, np.sqrt(alphas), np.sqrt(1 - alphas)
        )
        rows = AncestralRow(
            denoised_sample=of_sample,
            denoised_output=of_output,
            denoised=np.sqrt(alphas_after) * (1 - kept) / (1 - alphas),
            sample=np.sqrt(kept) * (1 - alphas_after) / (1 - alphas),
            noise=np.sqrt(variance) * draws_noise,
        )
        return self._make_schedule(timesteps, rows, draws_noise, first_call=first_step)

    def _following(self, timesteps: np.ndarray) -> np.ndarray:
        """The timestep to which each of a run steps; negative after the last."""
        return np.append(timesteps[1:], -1)
