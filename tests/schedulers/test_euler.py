import numpy as np
import pytest
from diffusers_oracle import (
    DESIGNED,
    SDXL,
    STEP_COUNTS,
    TRAINED,
    assert_matches_diffusers,
    random_configs,
    run,
    short_id,
)

from hotshot_jax.schedulers import EulerDiscreteScheduler

NAME = "EulerDiscreteScheduler"
CHOICES = {
    **TRAINED,
    **DESIGNED,
    "interpolation_type": ["linear", "linear", "log_linear"],
    "timestep_type": ["discrete", "discrete", "continuous"],
    "final_sigmas_type": ["zero", "sigma_min"],
}


@pytest.mark.parametrize("config", random_configs(CHOICES, 12), ids=short_id)
def test_random_configs_match_diffusers(config):
    for steps in STEP_COUNTS:
        assert_matches_diffusers(NAME, config, steps)


def test_every_step_count_matches_diffusers():
    for steps in range(1, 51):
        assert_matches_diffusers(NAME, SDXL, steps)


def test_zero_terminal_snr_keeps_its_digits():
    # From σ = 4096 one step lands on the denoised sample. In float32, x - (x - D) would be off by
    # the last digit of x, 2e-4 and more.
    config = SDXL | {
        "prediction_type": "v_prediction",
        "rescale_betas_zero_snr": True,
        "timestep_spacing": "trailing",
    }
    scheduler = EulerDiscreteScheduler.from_config(config)
    schedule = scheduler.schedule(1)
    x = np.float32([[3000.0, -1234.5, 0.25]])
    v = np.float32([[0.5, -1.5, 0.75]])
    denoised, _ = scheduler.step(schedule.row(0), (), v, x)
    sigma = np.float64(schedule.sigmas[0])
    expected = x / (sigma**2 + 1) - v * sigma / np.sqrt(sigma**2 + 1)
    np.testing.assert_allclose(denoised, expected, rtol=1e-6)


def test_original_sample_is_another_name_for_sample():
    scheduler = EulerDiscreteScheduler.from_config(SDXL | {"prediction_type": "original_sample"})
    assert scheduler.prediction_type == "sample"
    schedule = scheduler.schedule(3)
    # The last step ends on the model's x_0.
    last = schedule.row(2)
    assert (last.sample, last.output) == (0.0, 1.0)
    assert np.isfinite(run(scheduler, schedule)).all()
