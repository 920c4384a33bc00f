"""What every scheduler is: an immutable description that makes tables, and a pure step over them.

`schedule(n)` works out on the host, in float64, everything that the n steps need; a call then reads
one row of those tables. The step itself is the same arithmetic for every row (a switch of order is
a weight that is 0), so one compiled step serves every number of steps, and the rows can be the
inputs of `lax.scan`:

    schedule = scheduler.schedule(30)
    state = scheduler.init_state(sample)
    for i in range(schedule.calls):
        row = schedule.row(i)
        output = model(scheduler.scale_model_input(row, sample), schedule.timesteps[i])
        sample, state = scheduler.step(row, state, output, sample, noise)

Samples and states are float32 throughout. Model outputs and noise of other float types are widened
first, and the result is not cast back: pipelines in half precision cast what goes into the model.
"""

import abc
import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, ClassVar, Self, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.choices import PREDICTION_TYPES, SPACINGS
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers.configuration import check_options, option, read_options, unsupported
from hotshot_jax.schedulers.noise_schedule import (
    BETA_SCHEDULES,
    NoiseSchedule,
    betas_from_list,
    make_betas,
    rescale_zero_terminal_snr,
)
from hotshot_jax.schedulers.numbers import alpha_and_sigma

Column: TypeAlias = Any
"""One entry of a row: numpy with a leading axis [calls] in the tables, without it in a step."""

DYNAMIC_THRESHOLDING = "dynamic thresholding is made for pixels, not for latents"


@dataclasses.dataclass(frozen=True, eq=False)
class Schedule:
    """The tables of one run.

    Attributes:
        timesteps: float32 or int64 [calls], as the model is to be given them.
        sigmas: float32, the levels that diffusers' scheduler holds after `set_timesteps`; None for
            schedulers that have none.
        init_noise_sigma: factor for unit Gaussian noise to make the first sample.
        draws_noise: bool [calls], where the PyTorch scheduler draws from its generator, whether or
            not the draw has an effect.
        steps: pytree of float32 arrays [calls, ...].
        step_of_call: int64 [calls], counted from 0 in the whole schedule; solvers that call the
            model several times for a step differ from the others.
        signal: float32 [calls]; the sample of call i is signal[i] x_0 + noise_level[i] ε.
        noise_level: float32 [calls], see there.
        calls_before: calls of the whole schedule that come before those of this run.
    """

    timesteps: np.ndarray
    sigmas: np.ndarray | None
    init_noise_sigma: float
    draws_noise: np.ndarray
    steps: Any
    step_of_call: np.ndarray
    signal: np.ndarray
    noise_level: np.ndarray
    calls_before: int = 0

    @property
    def calls(self) -> int:
        """How often the model is called."""
        return len(self.timesteps)

    @property
    def whole_calls(self) -> int:
        """Calls of the whole schedule, with those before this run."""
        return self.calls_before + self.calls

    def row(self, i: int) -> Any:
        """What call i needs: `steps` with the leading axis taken away."""
        return jax.tree.map(lambda column: column[i], self.steps)

    def add_noise(self, sample: ArrayLike, noise: ArrayLike, i: int) -> jax.Array:
        """A clean sample noised to where call i finds it; float32, any shape.

        Args:
            sample: x_0.
            noise: ε, unit Gaussian, the same shape.
            i: number of the call.
        """
        return self.signal[i] * float32(sample) + self.noise_level[i] * float32(noise)


@dataclasses.dataclass(frozen=True)
class Scheduler(abc.ABC):
    """Options of every scheduler, named as in `scheduler_config.json`.

    Raises:
        HotshotError: on construction, when a value is not supported; the message names the key.
    """

    num_train_timesteps: int = option(1000, low=1)
    beta_start: float = option(0.0001, low=0, high=1)
    beta_end: float = option(0.02, low=0, high=1)
    beta_schedule: str = option("linear", choices=BETA_SCHEDULES)
    trained_betas: tuple[float, ...] | None = option(None)
    prediction_type: str = option("epsilon", choices=PREDICTION_TYPES)
    timestep_spacing: str = option("linspace", choices=SPACINGS)
    steps_offset: int = option(0, low=0)
    rescale_betas_zero_snr: bool = option(False)

    variance_exploding: ClassVar[bool] = False
    """Whether samples are x_0 + σ ε; otherwise their variance is preserved."""

    refused: ClassVar[Mapping[str, str]] = {}
    """Keys of diffusers' class of the same name that must be off here, and why."""

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build from the contents of any `scheduler_config.json`.

        Args:
            config: keys that belong to other scheduler classes are accepted and have no effect;
                null stands for the default.

        Raises:
            HotshotError: an unsupported value, a refused feature, or an unknown key.
        """
        if config.get("variance_type") in ("learned", "learned_range"):
            value = config["variance_type"]
            raise unsupported(cls.__name__, "variance_type", value, "a model of the mean only")
        refused = dict(cls.refused) | {"use_flow_sigmas": "this is no flow-matching model"}
        return cls(**read_options(cls, config, refused))

    def __post_init__(self) -> None:
        check_options(self)
        _ = self.noise_schedule

    @property
    def stochastic(self) -> bool:
        """Whether `step` uses noise."""
        return False

    @functools.cached_property
    def noise_schedule(self) -> NoiseSchedule:
        """β_t and ā_t of the training timesteps."""
        owner = type(self).__name__
        if self.trained_betas is not None:
            betas = betas_from_list(self.trained_betas)
            if betas.shape != (self.num_train_timesteps,):
                expected = f"num_train_timesteps={self.num_train_timesteps} values"
                raise unsupported(owner, "trained_betas", f"{betas.size} values", expected)
        else:
            betas = make_betas(
                self.beta_schedule, self.beta_start, self.beta_end, self.num_train_timesteps
            )
        if not np.all((betas > 0) & (betas < 1)):
            key = "beta_start" if self.trained_betas is None else "trained_betas"
            raise unsupported(owner, key, getattr(self, key), "betas between 0 and 1")
        if self.rescale_betas_zero_snr:
            betas = rescale_zero_terminal_snr(betas)
        return NoiseSchedule.from_betas(betas)

    @abc.abstractmethod
    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run.

        Args:
            num_inference_steps: 1 .. num_train_timesteps.
            first_step: steps that are left out at the beginning, as in a run that starts from a
                noised clip; solvers with a history then begin there as at any first step.

        Raises:
            UsageError: a number of steps that cannot be taken, or no step is left.
            HotshotError: a configuration that has no finite step.
        """

    def init_state(self, sample: ArrayLike) -> Any:
        """Solver history before the first call: pytree of float32 arrays of sample's shape."""
        return ()

    def scale_model_input(self, row: Any, sample: ArrayLike) -> jax.Array:
        """The sample as the model wants it; float32, any shape."""
        return float32(sample)

    @abc.abstractmethod
    def step(
        self,
        row: Any,
        state: Any,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, Any]:
        """One call's update; pure, for use under `jit` and `lax.scan`.

        Args:
            row: `schedule.row(i)`.
            state: from `init_state` or the previous call.
            model_output: what the model predicted, any shape and float dtype.
            sample: the sample before scaling, same shape.
            noise: unit Gaussian noise, same shape; needed when `stochastic`, ignored otherwise.

        Returns:
            The next sample (float32) and state.

        Raises:
            ValueError: noise is missing.
        """

    def add_noise(self, sample: ArrayLike, noise: ArrayLike, timesteps: ArrayLike) -> jax.Array:
        """See `NoiseSchedule.add_noise`: variance-preserving for every scheduler."""
        return self.noise_schedule.add_noise(sample, noise, timesteps)

    def velocity(self, sample: ArrayLike, noise: ArrayLike, timesteps: ArrayLike) -> jax.Array:
        """See `NoiseSchedule.velocity`."""
        return self.noise_schedule.velocity(sample, noise, timesteps)

    def snr(self, timesteps: ArrayLike) -> jax.Array:
        """See `NoiseSchedule.snr`."""
        return self.noise_schedule.snr(timesteps)

    def _check_steps(self, steps: int, first: int, most: int | None = None) -> None:
        most = self.num_train_timesteps if most is None else most
        if isinstance(steps, bool) or not isinstance(steps, int | np.integer):
            raise UsageError(f"num_inference_steps is {steps!r}; expected a whole number.")
        if not 1 <= steps <= most:
            raise UsageError(
                f"num_inference_steps is {steps}; {type(self).__name__} takes 1 to {most} steps."
            )
        if not 0 <= first < steps:
            raise UsageError(f"first_step is {first}; of {steps} steps none is left.")

    def _alphas_at(self, timesteps: np.ndarray) -> np.ndarray:
        """ā at int timesteps, float64."""
        if timesteps.max() >= self.num_train_timesteps:
            raise UsageError(
                f"{len(timesteps)} steps with timestep_spacing={self.timestep_spacing!r} and "
                f"steps_offset={self.steps_offset} reach timestep {timesteps.max()}, past the last "
                f"one ({self.num_train_timesteps - 1}); take fewer steps."
            )
        return self.noise_schedule.alphas_cumprod[timesteps].astype(np.float64)

    def _require_signal(self, alphas: np.ndarray) -> None:
        """Refuse to divide by ā = 0, which zero terminal SNR has at its last timestep."""
        if np.any(alphas == 0):
            raise HotshotError(
                f"{type(self).__name__}: rescale_betas_zero_snr=True leaves no signal at the last "
                f"training timestep, where prediction_type={self.prediction_type!r} cannot start.\n"
                "Choose another scheduler, such as euler."
            )

    def _make_schedule(
        self,
        timesteps: np.ndarray,
        steps: Any,
        draws_noise: np.ndarray | bool,
        sigmas: np.ndarray | None = None,
        init_noise_sigma: float = 1.0,
        step_of_call: np.ndarray | None = None,
        first_call: int = 0,
    ) -> Schedule:
        tables = jax.tree.map(lambda column: np.asarray(column, np.float32), steps)
        if not all(np.isfinite(table).all() for table in jax.tree.leaves(tables)):
            raise HotshotError(
                f"{type(self).__name__}: this configuration has no finite step somewhere along "
                f"{len(timesteps)} calls.\nChoose other options or another number of steps."
            )
        draws = np.broadcast_to(np.asarray(draws_noise, np.bool_), (len(timesteps),))
        if step_of_call is None:
            step_of_call = np.arange(len(timesteps))
        if sigmas is None:
            alphas = self._alphas_at(timesteps)
            signal, noise_level = np.sqrt(alphas), np.sqrt(1 - alphas)
        elif self.variance_exploding:
            signal, noise_level = np.ones(len(timesteps)), sigmas[:-1]
        else:
            signal, noise_level = alpha_and_sigma(sigmas[:-1])
        return Schedule(
            timesteps[first_call:],
            None if sigmas is None else sigmas[first_call:],
            init_noise_sigma,
            draws[first_call:],
            jax.tree.map(lambda table: table[first_call:], tables),
            step_of_call[first_call:],
            signal[first_call:].astype(np.float32),
            noise_level[first_call:].astype(np.float32),
            first_call,
        )


def float32(array: ArrayLike) -> jax.Array:
    """The array as float32."""
    return jnp.asarray(array, jnp.float32)


def zeros_like_sample(sample: ArrayLike) -> jax.Array:
    """A float32 array of zeros of its own, so that a state can be donated."""
    return jnp.zeros(jnp.shape(sample), jnp.float32)


def require_noise(noise: ArrayLike | None) -> jax.Array:
    """The noise as float32.

    Raises:
        ValueError: there is none.
    """
    if noise is None:
        raise ValueError("this scheduler is stochastic: step needs noise")
    return float32(noise)
