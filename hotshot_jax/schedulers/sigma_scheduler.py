"""Options shared by the schedulers that can replace their noise levels by a designed sequence."""

import dataclasses

import numpy as np

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers.base import Scheduler
from hotshot_jax.schedulers.configuration import option, unsupported
from hotshot_jax.schedulers.sigmas import beta_sigmas, exponential_sigmas, karras_sigmas

SPACED_SIGMAS = {
    "use_karras_sigmas": karras_sigmas,
    "use_exponential_sigmas": exponential_sigmas,
    "use_beta_sigmas": beta_sigmas,
}


@dataclasses.dataclass(frozen=True)
class SigmaScheduler(Scheduler):
    """A scheduler that steps from one noise level to the next.

    Attributes:
        use_karras_sigmas: levels after Karras et al.
        use_exponential_sigmas: levels in equal steps of log σ.
        use_beta_sigmas: levels at quantiles of a Beta distribution.
        sigma_min: smallest level of these sequences; None for the one of the schedule.
        sigma_max: largest level of these sequences; None for the one of the schedule.
    """

    use_karras_sigmas: bool = option(False)
    use_exponential_sigmas: bool = option(False)
    use_beta_sigmas: bool = option(False)
    sigma_min: float | None = option(None, low=1e-10)
    sigma_max: float | None = option(None, low=1e-10)

    def __post_init__(self) -> None:
        super().__post_init__()
        on = [key for key in SPACED_SIGMAS if getattr(self, key)]
        if len(on) > 1:
            raise HotshotError(
                f"{type(self).__name__}: only one of {' and '.join(f'{key}=True' for key in on)} "
                "can hold.\nSwitch the others off in scheduler_config.json."
            )
        low, high = self.sigma_min, self.sigma_max
        if low is not None and high is not None and low >= high:
            expected = f"less than sigma_max={high}"
            raise unsupported(type(self).__name__, "sigma_min", low, expected)

    @property
    def _designed_key(self) -> str | None:
        """The option that designs the noise levels, if one is on."""
        return next((key for key in SPACED_SIGMAS if getattr(self, key)), None)

    def _designed_sigmas(self, largest: float, smallest: float, steps: int) -> np.ndarray | None:
        """The designed sequence that is switched on, if one is; float64 [steps]."""
        for key, sequence in SPACED_SIGMAS.items():
            if getattr(self, key):
                high = largest if self.sigma_max is None else self.sigma_max
                low = smallest if self.sigma_min is None else self.sigma_min
                return sequence(float(high), float(low), steps)
        return None
