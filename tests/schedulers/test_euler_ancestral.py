import numpy as np
import pytest
from diffusers_oracle import (
    LATENTS,
    NOISES,
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    short_id,
)

from hotshot_jax.schedulers import EulerAncestralDiscreteScheduler

NAME = "EulerAncestralDiscreteScheduler"
CHOICES = {**TRAINED, "prediction_type": ["epsilon", "v_prediction"]}


@pytest.mark.parametrize("config", random_configs(CHOICES, 12), ids=short_id)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_noise_is_drawn_in_the_last_call_and_has_no_weight_there():
    schedule = EulerAncestralDiscreteScheduler.from_config(SDXL).schedule(5)
    assert schedule.draws_noise.all()
    assert schedule.steps.noise[-1] == 0
    assert (schedule.steps.noise[:-1] > 0).all()


def test_sample_prediction_equals_epsilon_prediction():
    # diffusers refuses sample prediction here, so it is held against the other parametrisation.
    epsilon = EulerAncestralDiscreteScheduler.from_config(SDXL)
    sample = EulerAncestralDiscreteScheduler.from_config(SDXL | {"prediction_type": "sample"})
    schedules = epsilon.schedule(4), sample.schedule(4)
    for i in range(4):
        output = 0.5 * LATENTS
        denoised = LATENTS - schedules[0].sigmas[i] * output
        expected, _ = epsilon.step(schedules[0].row(i), (), output, LATENTS, NOISES[i])
        result, _ = sample.step(schedules[1].row(i), (), denoised, LATENTS, NOISES[i])
        # σ is up to 11 here, and every difference costs its last float32 digit.
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_noise_is_required():
    scheduler = EulerAncestralDiscreteScheduler.from_config(SDXL)
    with pytest.raises(ValueError, match="noise"):
        scheduler.step(scheduler.schedule(2).row(0), (), LATENTS, LATENTS)
