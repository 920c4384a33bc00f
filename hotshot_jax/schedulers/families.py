"""Options and steps that several schedulers share."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers.base import (
    DYNAMIC_THRESHOLDING,
    Column,
    Schedule,
    Scheduler,
    float32,
    require_noise,
)
from hotshot_jax.schedulers.configuration import option, unsupported
from hotshot_jax.schedulers.numbers import (
    Weights,
    alpha_and_sigma,
    beta_sigmas,
    denoised_weights,
    exponential_sigmas,
    karras_sigmas,
    solver_spaced,
)

SPACED_SIGMAS = {
    "use_karras_sigmas": karras_sigmas,
    "use_exponential_sigmas": exponential_sigmas,
    "use_beta_sigmas": beta_sigmas,
}


class ExplodingScheduler(Scheduler):
    """A scheduler in the picture x = x_0 + σ ε, whose rows have the scale of the model's input."""

    variance_exploding: ClassVar[bool] = True

    def scale_model_input(self, row: Any, sample: ArrayLike) -> jax.Array:
        """x / sqrt(σ² + 1); float32."""
        return row.input_scale * float32(sample)


def exploding_denoised_weights(prediction_type: str, sigmas: np.ndarray) -> Weights:
    """Weights of (x, m) that give x_0 when x = x_0 + σ ε; see `denoised_weights`."""
    alpha, sigma = alpha_and_sigma(sigmas)
    of_sample, of_output = denoised_weights(prediction_type, alpha, sigma)
    return alpha * of_sample, of_output


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


class AncestralRow(NamedTuple):
    """x_0 from (x, m), then x' = denoised · x_0 + sample · x + noise · z."""

    denoised_sample: Column
    denoised_output: Column
    denoised: Column
    sample: Column
    noise: Column


@dataclasses.dataclass(frozen=True)
class AncestralScheduler(Scheduler):
    """What DDPM and latent consistency sampling share.

    Attributes:
        clip_sample: clip x_0 to ± clip_sample_range.
    """

    clip_sample: bool = option(True)
    clip_sample_range: float = option(1.0, low=0)

    refused: ClassVar[Mapping[str, str]] = {"thresholding": DYNAMIC_THRESHOLDING}

    @property
    def stochastic(self) -> bool:
        """Noise in every call, though it may weigh nothing in the last."""
        return True

    def step(
        self,
        row: AncestralRow,
        state: Any,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        """One step to the next noise level; see `Scheduler.step`."""
        x = float32(sample)
        denoised = row.denoised_sample * x + row.denoised_output * float32(model_output)
        if self.clip_sample:
            denoised = jnp.clip(denoised, -self.clip_sample_range, self.clip_sample_range)
        following = row.denoised * denoised + row.sample * x
        return following + row.noise * require_noise(noise), state


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
