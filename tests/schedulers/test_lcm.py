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
from hotshot_jax.schedulers import LCMScheduler

NAME = "LCMScheduler"
CHOICES = {
    **TRAINED,
    "rescale_betas_zero_snr": [False],
    "original_inference_steps": [50, 64, 100],
    # Small enough that the boundary condition blends in the sample.
    "timestep_scaling": [10.0, 3.0, 0.01],
    "clip_sample": [False, True],
    "clip_sample_range": [1.0, 2.5],
}
ZERO_SNR = CHOICES | {
    "rescale_betas_zero_snr": [True],
    "prediction_type": ["v_prediction", "sample"],
}


@pytest.mark.parametrize(
    "config", random_configs(CHOICES, 9) + random_configs(ZERO_SNR, 4), ids=short_id
)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_no_noise_is_drawn_in_the_last_call():
    schedule = LCMScheduler.from_config(SDXL).schedule(4)
    assert schedule.draws_noise.tolist() == [True, True, True, False]
    assert schedule.steps.noise[-1] == 0
    assert LCMScheduler().schedule(1).draws_noise.tolist() == [False]


def test_no_more_steps_than_were_distilled():
    with pytest.raises(UsageError, match="1 to 50"):
        LCMScheduler().schedule(51)
    with pytest.raises(HotshotError, match="original_inference_steps=2000"):
        LCMScheduler.from_config({"original_inference_steps": 2000})
