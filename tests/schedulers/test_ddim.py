import dataclasses
import math

import numpy as np
import pytest
from diffusers_oracle import (
    LATENTS,
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    short_id,
)

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers import DDIMScheduler

NAME = "DDIMScheduler"
CHOICES = {
    **TRAINED,
    # epsilon prediction has no first step after zero terminal SNR.
    "rescale_betas_zero_snr": [False],
    "clip_sample": [False, True],
    "clip_sample_range": [1.0, 2.5],
    "set_alpha_to_one": [False, True],
}
ZERO_SNR = CHOICES | {
    "rescale_betas_zero_snr": [True],
    "prediction_type": ["v_prediction", "sample"],
}
ETAS = (0.0, 0.5, 1.0)


@pytest.mark.parametrize(
    "index, config",
    list(enumerate(random_configs(CHOICES, 9) + random_configs(ZERO_SNR, 6))),
    ids=short_id,
)
def test_random_configs_match_diffusers(index, config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps, eta=ETAS[index % 3])


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps, eta=0.0)


def test_noise_is_drawn_only_with_eta():
    scheduler = DDIMScheduler.from_config(SDXL)
    assert not scheduler.stochastic
    assert not scheduler.schedule(4).draws_noise.any()
    stochastic = dataclasses.replace(scheduler, eta=0.1)
    assert stochastic.stochastic
    assert stochastic.schedule(4).draws_noise.all()


def test_eta_one_starts_from_pure_noise_without_nan():
    # 1 - ā' - s² is 0 there, and falls below it in float32.
    config = SDXL | {
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
    }
    scheduler = dataclasses.replace(DDIMScheduler.from_config(config), eta=1.0)
    for steps in range(1, 51):
        assert scheduler.schedule(steps).steps.direction[0] == pytest.approx(0.0, abs=1e-7)


@pytest.mark.parametrize("eta", [-0.1, 1.5, math.nan])
def test_eta_out_of_range(eta):
    with pytest.raises(UsageError, match="eta"):
        dataclasses.replace(DDIMScheduler(), eta=eta)


def test_epsilon_prediction_cannot_start_without_signal():
    config = SDXL | {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
    with pytest.raises(HotshotError, match=r"rescale_betas_zero_snr.*epsilon"):
        DDIMScheduler.from_config(config).schedule(10)
    # Leading spacing does not visit the last timestep.
    schedule = DDIMScheduler.from_config(config | {"timestep_spacing": "leading"}).schedule(10)
    assert np.isfinite(schedule.steps.denoised_output).all()


def test_timesteps_past_the_schedule():
    with pytest.raises(UsageError, match="timestep 1000"):
        DDIMScheduler.from_config(SDXL).schedule(1000)


def test_clipping():
    scheduler = DDIMScheduler.from_config(
        SDXL | {"clip_sample": True, "clip_sample_range": 0.25, "prediction_type": "sample"}
    )
    row = scheduler.schedule(5).row(2)
    clipped, _ = scheduler.step(row, (), 100 * LATENTS, LATENTS)
    unclipped = dataclasses.replace(scheduler, clip_sample=False)
    expected, _ = unclipped.step(row, (), 100 * LATENTS, LATENTS)
    # The direction keeps the unclipped prediction, as in diffusers.
    difference = row.denoised * (100 * LATENTS - np.clip(100 * LATENTS, -0.25, 0.25))
    np.testing.assert_allclose(expected - clipped, difference, rtol=1e-4, atol=1e-4)
