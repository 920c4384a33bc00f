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

from hotshot_jax.schedulers import HeunDiscreteScheduler
from hotshot_jax.schedulers.noise_schedule import SMALLEST_ALPHA_CUMPROD

NAME = "HeunDiscreteScheduler"
CHOICES = {
    **TRAINED,
    **DESIGNED,
    "rescale_betas_zero_snr": [False],
    "beta_schedule": ["scaled_linear", "scaled_linear", "linear", "exp"],
    "clip_sample": [False, True],
    "clip_sample_range": [1.0, 2.5],
}


@pytest.mark.parametrize("config", random_configs(CHOICES, 12), ids=short_id)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_zero_terminal_snr_matches_diffusers_with_euler_tables():
    # diffusers' class has no such option; it is given the tables that its Euler class would use.
    config = SDXL | {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    rescaled = HeunDiscreteScheduler.from_config(config).noise_schedule

    def rescale(scheduler):
        tables = scheduler.alphas_cumprod.new_tensor(rescaled.alphas_cumprod)
        tables[-1] = SMALLEST_ALPHA_CUMPROD
        scheduler.alphas_cumprod = tables

    for steps in (1, 2, 10, 25):
        assert_matches_diffusers(NAME, config, steps, prepare=rescale)


@pytest.mark.parametrize("steps", [1, 2, 7])
def test_calls(steps):
    schedule = HeunDiscreteScheduler.from_config(SDXL).schedule(steps)
    assert schedule.calls == 2 * steps - 1
    assert not schedule.draws_noise.any()
    # Every timestep but the first is visited twice.
    assert len(np.unique(schedule.timesteps)) == steps


def test_both_calls_of_a_step_belong_to_it():
    schedule = HeunDiscreteScheduler().schedule(4)
    np.testing.assert_array_equal(schedule.step_of_call, [0, 0, 1, 1, 2, 2, 3])
