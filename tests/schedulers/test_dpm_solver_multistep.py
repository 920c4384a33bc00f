import math

import numpy as np
import pytest
from diffusers_oracle import (
    DESIGNED,
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    short_id,
)

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers import DPMSolverMultistepScheduler

NAME = "DPMSolverMultistepScheduler"
SOLVERS = {
    **TRAINED,
    **DESIGNED,
    "solver_order": [1, 2, 2, 3],
    "solver_type": ["midpoint", "heun", "bh2"],
    "lower_order_final": [True, False],
    "euler_at_final": [True, False],
    "lambda_min_clipped": [-math.inf, -math.inf, -5.1],
}
CHOICES = SOLVERS | {
    "algorithm_type": ["dpmsolver++", "sde-dpmsolver++"],
    "final_sigmas_type": ["zero", "sigma_min"],
}
OLDER = SOLVERS | {
    "algorithm_type": ["dpmsolver", "sde-dpmsolver"],
    "final_sigmas_type": ["sigma_min"],
    "solver_order": [1, 2],
    "rescale_betas_zero_snr": [False],
    # Below the last training level PyTorch's SDE takes the root of a negative number.
    "sigma_min": [None],
}
LU = CHOICES | {"use_lu_lambdas": [True], "designed": [None]}
COSINE = CHOICES | {
    "beta_schedule": ["squaredcos_cap_v2"],
    "rescale_betas_zero_snr": [False],
    "lambda_min_clipped": [-5.1],
}


@pytest.mark.parametrize(
    "config",
    random_configs(CHOICES, 16)
    + random_configs(OLDER, 6)
    + random_configs(LU, 3)
    + random_configs(COSINE, 3),
    ids=short_id,
)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


@pytest.mark.parametrize("karras", [False, True])
@pytest.mark.parametrize("algorithm", ["dpmsolver++", "sde-dpmsolver++"])
def test_every_step_count_matches_diffusers(algorithm, karras):
    config = SDXL | {"algorithm_type": algorithm, "use_karras_sigmas": karras}
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, config, steps)


def test_third_order_matches_diffusers():
    for algorithm in ("dpmsolver++", "sde-dpmsolver++"):
        config = SDXL | {"solver_order": 3, "algorithm_type": algorithm}
        for steps in (3, 4, 14, 15, 30):
            assert_matches_diffusers(NAME, config, steps)


def test_noise_is_drawn_in_every_call_of_the_sde():
    sde = DPMSolverMultistepScheduler.from_config(SDXL | {"algorithm_type": "sde-dpmsolver++"})
    assert sde.stochastic and sde.schedule(6).draws_noise.all()
    ode = DPMSolverMultistepScheduler.from_config(SDXL)
    assert not ode.stochastic and not ode.schedule(6).draws_noise.any()


@pytest.mark.parametrize(
    "change, key",
    [
        ({"algorithm_type": "dpmsolver"}, "final_sigmas_type"),
        (
            {
                "algorithm_type": "sde-dpmsolver",
                "final_sigmas_type": "sigma_min",
                "solver_order": 3,
            },
            "solver_order",
        ),
        ({"solver_order": 4}, "solver_order"),
        ({"use_lu_lambdas": True, "use_karras_sigmas": True}, "use_lu_lambdas"),
        ({"use_flow_sigmas": True}, "use_flow_sigmas"),
        ({"variance_type": "learned"}, "variance_type"),
        ({"prediction_type": "flow_prediction"}, "prediction_type"),
    ],
)
def test_unsupported_values_are_named(change, key):
    with pytest.raises(HotshotError, match=key):
        DPMSolverMultistepScheduler.from_config(SDXL | change)


def test_clipping_every_timestep_is_refused():
    scheduler = DPMSolverMultistepScheduler.from_config(SDXL | {"lambda_min_clipped": 9.0})
    with pytest.raises(HotshotError, match="lambda_min_clipped"):
        scheduler.schedule(5)


def test_deis_becomes_dpm_solver_as_in_diffusers():
    # Its check for noise level 0 comes before the renaming there.
    config = SDXL | {
        "algorithm_type": "deis",
        "solver_type": "logrho",
        "final_sigmas_type": "sigma_min",
    }
    assert_matches_diffusers(NAME, config, 8)


def test_too_many_steps_for_distinct_levels():
    with pytest.raises(UsageError, match="1 to 999"):
        DPMSolverMultistepScheduler.from_config(SDXL).schedule(1000)
    linspace = DPMSolverMultistepScheduler.from_config(SDXL | {"timestep_spacing": "linspace"})
    with pytest.raises(UsageError, match="same noise level"):
        linspace.schedule(1000)
    assert np.isfinite(linspace.schedule(999).steps.predictions).all()
