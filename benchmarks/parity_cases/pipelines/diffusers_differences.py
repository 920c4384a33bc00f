"""Where diffusers 0.21.4, which the reference uses, and current versions compute different numbers.

The schedulers here follow current diffusers (0.42). The parity data were made with 0.21.4, so some
of its cases disagree. What 0.21.4 did there can be asked for in terms of the schedulers here, and a
`Difference` says how: such a case is then still compared over its whole trajectory and under the
same bound as the others, with the sentence printed beside it.

Euler, Euler ancestral, DDIM, PNDM and Heun compute the same in both. Without effect on the numbers:
Euler's timesteps for Karras levels were float64 and are float32 now, and Euler drew a noise in
every call, which it multiplied by 0, where current versions draw none.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hotshot_jax.schedulers.base import Schedule, Scheduler
from hotshot_jax.schedulers.ddpm import DDPMScheduler
from hotshot_jax.schedulers.families import MultistepScheduler


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference, and how to get the numbers of diffusers 0.21.4.

    Attributes:
        sentence: what is different, for reports.
        config: keys to change in the configuration.
        scheduler_class: the class that steps as 0.21.4 did, if not the scheduler's own.
        given_timesteps: run through the timesteps that 0.21.4 picked.
    """

    sentence: str
    config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    scheduler_class: type[Scheduler] | None = None
    given_timesteps: bool = False

    def scheduler(self, cls: type[Scheduler], config: Mapping[str, Any]) -> Scheduler:
        """The scheduler that computes as 0.21.4 did with this configuration."""
        return (self.scheduler_class or cls).from_config({**config, **self.config})

    def schedule(
        self,
        scheduler: Scheduler,
        steps: int,
        timesteps: Sequence[int] | np.ndarray,
        first_step: int = 0,
    ) -> Schedule:
        """The run that 0.21.4 made.

        Args:
            scheduler: from `Difference.scheduler`.
            steps: the number of steps that was asked for.
            timesteps: int [calls], those of 0.21.4's run.
            first_step: steps that are left out at the beginning.
        """
        if self.given_timesteps and isinstance(scheduler, MultistepScheduler):
            return scheduler._tables(np.asarray(timesteps, np.int64), None)
        return scheduler.schedule(steps, first_step)


class StridedDDPM(DDPMScheduler):
    """DDPM that steps down by one whole stride, even where the run's next timestep is another."""

    def _following(self, timesteps: np.ndarray) -> np.ndarray:
        return timesteps - self.num_train_timesteps // len(timesteps)


_LAST_LEVEL = Difference(
    "diffusers 0.21.4 ends the last step at timestep 0, current versions at noise level 0; "
    "compared with final_sigmas_type='sigma_min'",
    config={"final_sigmas_type": "sigma_min"},
)
_KARRAS_TIMESTEPS = Difference(
    "diffusers 0.21.4 uses Karras levels only to pick whole timesteps, steps between the levels of "
    "those and ends at timestep 0; current versions step between the Karras levels and end at 0; "
    "compared through 0.21.4's timesteps with final_sigmas_type='sigma_min'",
    config={"final_sigmas_type": "sigma_min", "use_karras_sigmas": False},
    given_timesteps=True,
)
_DDPM_STRIDE = Difference(
    "diffusers 0.21.4 steps DDPM down by one whole stride, current versions to the next timestep "
    "of the run; compared with whole strides",
    scheduler_class=StridedDDPM,
)

KNOWN_DIFFERENCES: Mapping[str, Difference] = {
    "dpm": _LAST_LEVEL,
    "dpm_karras": _KARRAS_TIMESTEPS,
    "unipc": _LAST_LEVEL,
    "unipc_karras": _KARRAS_TIMESTEPS,
    "ddpm_linspace": _DDPM_STRIDE,
    "ddpm_trailing": _DDPM_STRIDE,
}
"""All differences, by solver and the option that matters; `known_difference` looks them up."""


def known_difference(class_name: str, config: Mapping[str, Any]) -> Difference | None:
    """What diffusers 0.21.4 does differently for a scheduler.

    Args:
        class_name: diffusers' class name.
        config: the configuration as 0.21.4 resolves it.

    Returns:
        The difference, or None where both versions agree.
    """
    karras = "_karras" if config.get("use_karras_sigmas") else ""
    key = {
        "DPMSolverMultistepScheduler": f"dpm{karras}",
        "UniPCMultistepScheduler": f"unipc{karras}",
        "DDPMScheduler": f"ddpm_{config.get('timestep_spacing')}",
    }.get(class_name, class_name)
    return KNOWN_DIFFERENCES.get(key)
