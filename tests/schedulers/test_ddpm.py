import pytest
from diffusers_oracle import (
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    short_id,
)

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers import DDPMScheduler

NAME = "DDPMScheduler"
CHOICES = {
    **TRAINED,
    "rescale_betas_zero_snr": [False],
    "beta_schedule": ["scaled_linear", "linear", "sigmoid", "laplace", "squaredcos_cap_v2"],
    "variance_type": ["fixed_small", "fixed_small_log", "fixed_large"],
    "clip_sample": [False, True],
    "clip_sample_range": [1.0, 2.5],
}
ZERO_SNR = CHOICES | {
    "beta_schedule": ["scaled_linear"],
    "rescale_betas_zero_snr": [True],
    "prediction_type": ["v_prediction", "sample"],
}


@pytest.mark.parametrize(
    "config", random_configs(CHOICES, 12) + random_configs(ZERO_SNR, 4), ids=short_id
)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_noise_is_drawn_above_timestep_0():
    offset = DDPMScheduler.from_config(SDXL).schedule(5)
    assert offset.timesteps[-1] == 1
    assert offset.draws_noise.all()
    plain = DDPMScheduler.from_config(SDXL | {"steps_offset": 0}).schedule(5)
    assert plain.timesteps[-1] == 0
    assert plain.draws_noise.tolist() == [True, True, True, True, False]
    assert plain.steps.noise[-1] == 0


@pytest.mark.parametrize("value", ["fixed_large_log", "learned", "learned_range"])
def test_unsupported_variance(value):
    with pytest.raises(HotshotError, match=f"variance_type='{value}'"):
        DDPMScheduler.from_config(SDXL | {"variance_type": value})
