import numpy as np
import pytest
from diffusers_oracle import SDXL, make_theirs

from hotshot_jax.schedulers import DDPMScheduler
from hotshot_jax.schedulers.numbers import (
    alpha_and_sigma,
    beta_sigmas,
    exponential_sigmas,
    init_noise_sigma,
    karras_sigmas,
    sigma_to_timestep,
    training_sigmas,
)

THEIRS = make_theirs("EulerDiscreteScheduler", SDXL)
SEQUENCES = {
    karras_sigmas: THEIRS._convert_to_karras,
    exponential_sigmas: THEIRS._convert_to_exponential,
    beta_sigmas: THEIRS._convert_to_beta,
}


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_sequences_match_diffusers(sequence):
    for steps in (1, 2, 3, 10, 50):
        ends = np.array([14.6, 0.03])
        result = sequence(14.6, 0.03, steps)
        assert result.shape == (steps,)
        np.testing.assert_allclose(result, SEQUENCES[sequence](ends, steps), rtol=1e-12)


def test_timesteps_match_diffusers():
    training = training_sigmas(DDPMScheduler.from_config(SDXL).noise_schedule)
    logs = np.log(training)
    # Below, above and between the training levels, and on them.
    sigmas = np.concatenate([np.geomspace(0.001, 100, 301), training[::97].astype(np.float64)])
    expected = [THEIRS._sigma_to_t(sigma, logs) for sigma in sigmas]
    np.testing.assert_array_equal(sigma_to_timestep(sigmas, logs), expected)


def test_training_levels_come_back_as_their_timesteps():
    training = training_sigmas(DDPMScheduler.from_config(SDXL).noise_schedule)
    timesteps = sigma_to_timestep(training.astype(np.float64), np.log(training))
    # Neighbouring logarithms are 5e-3 apart and have float32 digits.
    np.testing.assert_allclose(timesteps, np.arange(1000), atol=1e-3)


def test_alpha_and_sigma():
    alpha, sigma = alpha_and_sigma(np.float32([0.0, 1.0, 4096.0]))
    np.testing.assert_allclose(alpha**2 + sigma**2, 1, rtol=1e-15)
    np.testing.assert_allclose(sigma / alpha, [0, 1, 4096], rtol=1e-15)


def test_init_noise_sigma():
    sigmas = np.float32([3.0, 1.0, 0.0])
    assert init_noise_sigma(sigmas, "trailing") == 3
    assert init_noise_sigma(sigmas, "linspace") == 3
    assert init_noise_sigma(sigmas, "leading") == pytest.approx(10**0.5, rel=1e-7)
