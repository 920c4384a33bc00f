"""Timesteps and noise levels of the multistep solvers, DPM-Solver++ and UniPC."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers.base import DYNAMIC_THRESHOLDING, Schedule
from hotshot_jax.schedulers.configuration import option
from hotshot_jax.schedulers.sigma_scheduler import SigmaScheduler
from hotshot_jax.schedulers.timestep_spacing import solver_spaced


@dataclasses.dataclass(frozen=True)
class MultistepScheduler(SigmaScheduler):
    """Options shared by the multistep solvers.

    Attributes:
        solver_order: the highest order taken.
        lower_order_final: lower the order towards the end of a run.
        final_sigmas_type: the level after the last step: 0, or the smallest one.
    """

    solver_order: int = option(2, low=1)
    lower_order_final: bool = option(True)
    final_sigmas_type: str = option("zero", choices=("zero", "sigma_min"))

    refused: ClassVar[Mapping[str, str]] = {
        "thresholding": DYNAMIC_THRESHOLDING,
        "use_dynamic_shifting": "it belongs to flow matching",
    }

    @abc.abstractmethod
    def _tables(self, timesteps: np.ndarray, levels: np.ndarray | None, first: int = 0) -> Schedule:
        """Tables from step `first` of a run on, which takes the first order as every first step.

        Args:
            timesteps: int64 [steps], of the whole run.
            levels: its noise levels, if they are not those of the timesteps.
            first: number of the first step that is made.
        """

    def _solver_timesteps(self, steps: int, last: int) -> np.ndarray:
        if self.timestep_spacing == "leading" and steps >= last:
            raise UsageError(
                f"num_inference_steps is {steps}; {type(self).__name__} with timestep_spacing="
                f"'leading' takes 1 to {last - 1} steps."
            )
        return solver_spaced(
            self.timestep_spacing, steps, self.num_train_timesteps, self.steps_offset, last
        )

    def _require_distinct(self, sigmas: np.ndarray) -> None:
        """Refuse a run that stays on one noise level, where the solvers divide by zero."""
        if np.any(np.diff(sigmas) == 0):
            raise UsageError(
                f"{type(self).__name__} cannot take {len(sigmas)} steps: two of them fall on the "
                "same noise level. Take fewer steps."
            )
