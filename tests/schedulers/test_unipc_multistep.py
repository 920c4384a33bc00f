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

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers import UniPCMultistepScheduler

NAME = "UniPCMultistepScheduler"
SOLVERS = {
    **TRAINED,
    **DESIGNED,
    "solver_order": [1, 2, 2, 3],
    "disable_corrector": [[], [0], [0, 1, 3]],
}
CHOICES = SOLVERS | {
    # bh1 multiplies an infinity by 0 in diffusers' last step to noise level 0.
    "solver_type": ["bh2", "midpoint"],
    "final_sigmas_type": ["zero", "sigma_min"],
}
TO_SIGMA_MIN = SOLVERS | {
    "solver_type": ["bh1", "bh2"],
    "final_sigmas_type": ["sigma_min"],
    "predict_x0": [True, False],
    # The ε picture loses all digits at the level of 4096.
    "rescale_betas_zero_snr": [False],
}


@pytest.mark.parametrize(
    "config", random_configs(CHOICES, 14) + random_configs(TO_SIGMA_MIN, 8), ids=short_id
)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_order_without_lowering_matches_diffusers():
    config = SDXL | {"lower_order_final": False, "final_sigmas_type": "sigma_min"}
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_bh1_ends_at_noise_level_0():
    schedule = UniPCMultistepScheduler.from_config(SDXL | {"solver_type": "bh1"}).schedule(6)
    assert np.isfinite(schedule.steps.predictor).all()
    assert schedule.steps.predictor[-1].tolist() == [1.0, 0.0]
    assert schedule.steps.sample[-1] == 0


@pytest.mark.parametrize(
    "change, key",
    [
        ({"predict_x0": False}, "predict_x0"),
        ({"lower_order_final": False}, "lower_order_final"),
        ({"solver_p": {"_class_name": "DDIMScheduler"}}, "solver_p"),
        ({"solver_order": 0}, "solver_order"),
        ({"disable_corrector": 3}, "disable_corrector"),
        ({"disable_corrector": ["a"]}, "disable_corrector"),
        ({"thresholding": True}, "thresholding"),
    ],
)
def test_unsupported_values_are_named(change, key):
    with pytest.raises(HotshotError, match=key):
        UniPCMultistepScheduler.from_config(SDXL | change)
