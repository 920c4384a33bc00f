"""The oracle of these tests: current diffusers, run beside the schedulers on a cheap model.

Bound: 2e-5 of the largest value of the trajectory, in float32. Where diffusers' own float32 result
is further than that from the same computation in float64 (its tables kept), no float32
implementation can be held to it: there, four times its own distance is allowed. That happens where
a step takes the difference of numbers in the thousands, as after zero terminal SNR in few steps.
"""

import dataclasses
import functools
import importlib
import math
import random
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import diffusers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from hotshot_jax.schedulers import CLASSES, Schedule, Scheduler

BOUND = 2e-5
STEP_COUNTS = (1, 2, 3, 10, 25, 50)

_random = np.random.default_rng(0)
LATENTS = _random.standard_normal((1, 4, 2, 3, 3)).astype(np.float32)
NOISES = _random.standard_normal((64, *LATENTS.shape)).astype(np.float32)
CLEAN = _random.standard_normal(LATENTS.shape).astype(np.float32)

SDXL = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "trained_betas": None,
    "interpolation_type": "linear",
    "sample_max_value": 1.0,
    "use_karras_sigmas": False,
}

TRAINED = {
    "beta_schedule": ["scaled_linear", "scaled_linear", "linear"],
    "beta_start": [0.00085],
    "beta_end": [0.012],
    "prediction_type": ["epsilon", "v_prediction", "sample"],
    "timestep_spacing": ["linspace", "leading", "trailing"],
    "steps_offset": [0, 1],
    "rescale_betas_zero_snr": [False, False, True],
}
"""Options that most schedulers share, for `random_configs`."""

DESIGNED = {
    "designed": [None, None, "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas"],
    "sigma_min": [None, None, 0.03],
    "sigma_max": [None, None, 10.0],
}
"""Options of schedulers with designed noise levels; "designed" names the one to switch on."""


def random_configs(choices: dict[str, list[Any]], count: int) -> list[dict[str, Any]]:
    """`count` configurations with every option drawn from its choices; always the same ones."""
    drawn = []
    for seed in range(count):
        source = random.Random(seed)
        config = {key: source.choice(values) for key, values in choices.items()}
        designed = config.pop("designed", None)
        drawn.append(config | ({designed: True} if designed else {}))
    return drawn


def short_id(value: Any) -> str:
    """Enough of a configuration to tell tests apart."""
    return "" if isinstance(value, dict) else str(value)


@functools.partial(jax.jit, static_argnums=0)
def jitted_call(
    scheduler: Scheduler, row: Any, state: Any, sample: Any, wave: Any, noise: Any
) -> tuple[jax.Array, Any]:
    """One call of the test model, 0.3 x + 0.1 sin(t/100), and the scheduler's step."""
    output = 0.3 * scheduler.scale_model_input(row, sample) + 0.1 * wave
    return scheduler.step(row, state, output, sample, noise)


def waves(timesteps: Sequence[float] | np.ndarray) -> np.ndarray:
    """sin(t/100) in float64, rounded to float32."""
    return np.array([math.sin(float(t) / 100) for t in timesteps]).astype(np.float32)


def noise_by_call(schedule: Schedule, noises: np.ndarray) -> np.ndarray:
    """Successive draws, laid where the schedule says that they belong; zeros elsewhere."""
    laid = np.zeros((schedule.calls, *noises.shape[1:]), np.float32)
    laid[schedule.draws_noise] = noises[: schedule.draws_noise.sum()]
    return laid


def run(
    scheduler: Scheduler,
    schedule: Schedule,
    latents: np.ndarray = LATENTS,
    noises: np.ndarray = NOISES,
    clean: np.ndarray | None = None,
) -> np.ndarray:
    """The sample after every call, float32 [calls, ...]; from a noised `clean` one if given."""
    sample = jnp.asarray(latents) * np.float32(schedule.init_noise_sigma)
    if clean is not None:
        sample = schedule.add_noise(clean, latents, 0)
    state = scheduler.init_state(sample)
    noise, wave = noise_by_call(schedule, noises), waves(schedule.timesteps)
    trajectory = []
    for i in range(schedule.calls):
        sample, state = jitted_call(scheduler, schedule.row(i), state, sample, wave[i], noise[i])
        trajectory.append(np.asarray(sample))
    return np.stack(trajectory)


class _WideTorch:
    """torch, with float64 where a scheduler asks for float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@dataclasses.dataclass(frozen=True)
class TheirRun:
    scheduler: Any
    trajectory: np.ndarray
    draws: list[int]


def make_theirs(
    name: str,
    config: dict[str, Any],
    steps: int | None = None,
    prepare: Callable[[Any], None] = lambda scheduler: None,
) -> Any:
    """diffusers' scheduler, with its timesteps set if a number of steps is given."""
    with warnings.catch_warnings():
        # Of algorithm types that are to go, and of NumPy about diffusers.
        warnings.simplefilter("ignore")
        scheduler = getattr(diffusers, name).from_config(config)
        prepare(scheduler)
        if steps is not None:
            scheduler.set_timesteps(steps)
    return scheduler


def run_diffusers(
    name: str,
    config: dict[str, Any],
    steps: int,
    wide: bool = False,
    step_arguments: dict[str, Any] | None = None,
    prepare: Callable[[Any], None] = lambda scheduler: None,
    first_step: int | None = None,
) -> TheirRun:
    """The same run by diffusers, recording in which calls it draws noise.

    With `first_step` it is that of an image-to-image pipeline, from `CLEAN` and noise.
    """
    scheduler = make_theirs(name, config, steps, prepare)
    begin = (first_step or 0) * scheduler.order
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(begin)  # as pipelines do
    module = importlib.import_module(type(scheduler).__module__)
    dtype = torch.float64 if wide else torch.float32
    sample = torch.tensor(LATENTS, dtype=dtype) * scheduler.init_noise_sigma
    draws: list[int] = []
    call = 0

    def draw(shape: Any, **_: Any) -> torch.Tensor:
        draws.append(call)
        return torch.tensor(NOISES[len(draws) - 1], dtype=dtype).reshape(shape)

    trajectory = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "randn_tensor", draw, raising=False)
        if wide:
            patch.setattr(module, "torch", _WideTorch())
            for table in ("sigmas", "alphas_cumprod", "final_alpha_cumprod", "one"):
                if hasattr(scheduler, table):
                    setattr(scheduler, table, getattr(scheduler, table).double())
        timesteps = scheduler.timesteps[begin:]
        if first_step is not None:
            clean, noise = (torch.tensor(each, dtype=dtype) for each in (CLEAN, LATENTS))
            sample = scheduler.add_noise(clean, noise, timesteps[:1])
        wave = waves(timesteps)
        for call, t in enumerate(timesteps):
            output = 0.3 * scheduler.scale_model_input(sample, t) + 0.1 * torch.tensor(wave[call])
            sample = scheduler.step(output, t, sample, **(step_arguments or {})).prev_sample
            trajectory.append(sample.numpy())
    return TheirRun(scheduler, np.stack(trajectory), draws)


def relative_error(result: np.ndarray, reference: np.ndarray) -> float:
    return float(np.abs(result - reference).max() / np.abs(reference).max())


def assert_matches_diffusers(
    name: str,
    config: dict[str, Any],
    steps: int,
    eta: float | None = None,
    prepare: Callable[[Any], None] = lambda scheduler: None,
) -> None:
    """Timesteps, levels, draws and the whole trajectory of a run against diffusers."""
    scheduler = CLASSES[name].from_config(config)
    arguments = {}
    if eta is not None:
        scheduler = dataclasses.replace(scheduler, eta=eta)  # type: ignore[call-arg]
        arguments = {"eta": eta}
    schedule = scheduler.schedule(steps)
    theirs = run_diffusers(name, config, steps, step_arguments=arguments, prepare=prepare)

    timesteps = theirs.scheduler.timesteps.numpy()
    assert schedule.timesteps.dtype == timesteps.dtype
    # Fractional timesteps come out of float32 logarithms.
    np.testing.assert_allclose(schedule.timesteps, timesteps, rtol=1e-6, atol=2e-4)
    if hasattr(theirs.scheduler, "sigmas"):
        # PyTorch's float32 square root is not exactly rounded on every machine, and the rescaled
        # betas enlarge its last digit.
        assert schedule.sigmas is not None
        np.testing.assert_allclose(schedule.sigmas, theirs.scheduler.sigmas.numpy(), rtol=1e-4)
    assert schedule.init_noise_sigma == pytest.approx(
        float(theirs.scheduler.init_noise_sigma), rel=1e-6
    )
    assert list(np.nonzero(schedule.draws_noise)[0]) == theirs.draws

    result = run(scheduler, schedule)
    assert np.isfinite(result).all()
    # diffusers divides by 0 in places: roots of rounded differences, steps of no length.
    finite = np.isfinite(theirs.trajectory).reshape(schedule.calls, -1).all(axis=1)
    compared = schedule.calls if finite.all() else int(finite.argmin())
    if compared == 0:
        return
    expected = theirs.trajectory[:compared]
    error, bound = relative_error(result[:compared], expected), BOUND
    if error > bound:
        wide = run_diffusers(
            name, config, steps, wide=True, step_arguments=arguments, prepare=prepare
        )
        bound = 4 * relative_error(expected, wide.trajectory[:compared])
    assert error <= bound
