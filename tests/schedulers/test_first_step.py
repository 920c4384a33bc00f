"""Runs that begin in the middle of a schedule, from a noised clip, as image-to-image does."""

import numpy as np
import pytest
from diffusers_oracle import (
    BOUND,
    CLEAN,
    SDXL,
    random_configs,
    relative_error,
    run,
    run_diffusers,
)

from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers import CLASSES, PNDMScheduler

CHOICES = {
    "prediction_type": ["epsilon", "v_prediction"],
    "timestep_spacing": ["linspace", "leading", "trailing"],
    "steps_offset": [0, 1],
}
SPACED = {"designed": [None, "use_karras_sigmas", "use_exponential_sigmas"]}
SOLVERS = {
    "EulerDiscreteScheduler": SPACED,
    "EulerAncestralDiscreteScheduler": {},
    "HeunDiscreteScheduler": SPACED,
    "DDIMScheduler": {},
    "DDPMScheduler": {},
    "DPMSolverMultistepScheduler": SPACED
    | {
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
        "solver_order": [2, 2, 3],
        "final_sigmas_type": ["zero", "sigma_min"],
    },
    "UniPCMultistepScheduler": SPACED | {"solver_order": [2, 3]},
    "LCMScheduler": {},
}


@pytest.mark.parametrize("name", SOLVERS)
def test_equals_diffusers_from_a_noised_sample(name: str) -> None:
    for config in random_configs(CHOICES | SOLVERS[name], 6):
        config = SDXL | config
        scheduler = CLASSES[name].from_config(config)
        for steps, first in ((10, 0), (10, 4), (10, 9), (25, 7), (3, 1)):
            schedule = scheduler.schedule(steps, first)
            theirs = run_diffusers(name, config, steps, first_step=first)
            timesteps = theirs.scheduler.timesteps.numpy()[first * theirs.scheduler.order :]
            np.testing.assert_allclose(schedule.timesteps, timesteps, rtol=1e-6, atol=2e-4)
            assert list(np.nonzero(schedule.draws_noise)[0]) == theirs.draws
            # diffusers divides by 0 where a last step has no length.
            finite = np.isfinite(theirs.trajectory).reshape(schedule.calls, -1).all(axis=1)
            assert finite[:-1].all()
            ours = run(scheduler, schedule, clean=CLEAN)
            assert np.isfinite(ours).all()
            error = relative_error(ours[finite], theirs.trajectory[finite])
            assert error <= BOUND, (config, steps, first)


@pytest.mark.parametrize("name", [*SOLVERS, "PNDMScheduler"])
def test_step_0_is_the_whole_schedule(name: str) -> None:
    scheduler = CLASSES[name].from_config(SDXL)
    whole, begun = scheduler.schedule(7), scheduler.schedule(7, 0)
    np.testing.assert_array_equal(run(scheduler, begun), run(scheduler, whole))
    assert begun.calls_before == 0


def test_pndm_begins_with_its_own_start_up() -> None:
    # diffusers takes the second call for a repeated one although the timestep has moved on.
    scheduler = PNDMScheduler.from_config(SDXL)
    whole, begun = scheduler.schedule(10), scheduler.schedule(10, 6)
    expected = whole.timesteps[[7, 8, 8, 9, 10]]
    np.testing.assert_array_equal(begun.timesteps, expected)


@pytest.mark.parametrize("first", [-1, 5, 6])
def test_a_run_without_steps_is_refused(first: int) -> None:
    for name in ("EulerDiscreteScheduler", "LCMScheduler", "UniPCMultistepScheduler"):
        with pytest.raises(UsageError, match="first_step"):
            CLASSES[name].from_config(SDXL).schedule(5, first)
