import numpy as np
import pytest
from diffusers_oracle import (
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    short_id,
)

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers import PNDMScheduler

NAME = "PNDMScheduler"
CHOICES = {
    **TRAINED,
    "prediction_type": ["epsilon", "v_prediction"],
    "rescale_betas_zero_snr": [False],
    "set_alpha_to_one": [False, True],
    "skip_prk_steps": [True],
}
RUNGE_KUTTA = CHOICES | {"skip_prk_steps": [False]}


@pytest.mark.parametrize("config", random_configs(CHOICES, 10), ids=short_id)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


@pytest.mark.parametrize("config", random_configs(RUNGE_KUTTA, 5), ids=short_id)
def test_runge_kutta_start_matches_diffusers(config):
    for steps in (4, 5, 10, 25, 50):
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_calls():
    scheduler = PNDMScheduler.from_config(SDXL)
    assert [scheduler.schedule(n).calls for n in (1, 2, 3, 30)] == [1, 3, 4, 31]
    runge_kutta = PNDMScheduler.from_config(SDXL | {"skip_prk_steps": False})
    assert runge_kutta.schedule(10).calls == 12 + 7


def test_runge_kutta_start_needs_four_steps():
    with pytest.raises(UsageError, match="at least 4"):
        PNDMScheduler.from_config(SDXL | {"skip_prk_steps": False}).schedule(3)


def test_sample_prediction_is_refused():
    with pytest.raises(HotshotError, match="prediction_type='sample'"):
        PNDMScheduler.from_config(SDXL | {"prediction_type": "sample"})


def test_no_step_leaves_zero_signal():
    config = SDXL | {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction"}
    assert np.isfinite(PNDMScheduler.from_config(config).schedule(10).steps.output).all()
    with pytest.raises(HotshotError, match="rescale_betas_zero_snr"):
        PNDMScheduler.from_config(config | {"timestep_spacing": "trailing"}).schedule(10)


@pytest.mark.parametrize(
    ("skip_prk_steps", "expected"),
    [(True, [0, 0, 1, 2, 3, 4]), (False, [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 4])],
)
def test_the_calls_of_its_start_belong_to_their_steps(skip_prk_steps, expected):
    schedule = PNDMScheduler(skip_prk_steps=skip_prk_steps).schedule(5)
    np.testing.assert_array_equal(schedule.step_of_call, expected)
