import warnings

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers_oracle import BOUND, SDXL, make_theirs, relative_error

from hotshot_jax.schedulers import DDPMScheduler, EulerDiscreteScheduler
from hotshot_jax.schedulers.noise_schedule import BETA_SCHEDULES, make_betas
from hotshot_jax.schedulers.numbers import training_sigmas


@pytest.fixture
def schedule():
    return DDPMScheduler.from_config(SDXL).noise_schedule


def test_stored_add_noise(schedule, golden_add_noise):
    case = golden_add_noise
    arguments = case["latents"], case["noise"], case["timesteps"]
    assert relative_error(schedule.add_noise(*arguments), case["noisy"]) <= BOUND
    assert relative_error(schedule.velocity(*arguments), case["velocity"]) <= BOUND
    # A ratio to every value: the SNR spans seven orders of magnitude.
    np.testing.assert_allclose(schedule.snr(case["timesteps"]), case["snr"], rtol=BOUND)
    np.testing.assert_allclose(schedule.alphas_cumprod, case["alphas_cumprod"], rtol=3e-7)
    np.testing.assert_allclose(schedule.betas, case["betas"], rtol=3e-7)


@pytest.mark.parametrize(
    "beta_schedule, rescaled",
    # Of diffusers' classes only Heun's takes "exp", and it does not rescale.
    [(name, False) for name in BETA_SCHEDULES]
    + [(name, True) for name in BETA_SCHEDULES if name != "exp"],
)
def test_tables_match_diffusers(beta_schedule, rescaled):
    owner = "HeunDiscreteScheduler" if beta_schedule == "exp" else "DDPMScheduler"
    for count in (1000, 77):
        config = SDXL | {
            "beta_schedule": beta_schedule,
            "rescale_betas_zero_snr": rescaled,
            "num_train_timesteps": count,
            "steps_offset": 0,
        }
        theirs = make_theirs(owner, config)
        betas, alphas = theirs.betas.numpy(), theirs.alphas_cumprod.numpy()
        ours = DDPMScheduler.from_config(config).noise_schedule
        if rescaled:
            # PyTorch's float32 root is not exactly rounded on every machine. Rescaling subtracts
            # roots and divides by small ones, which enlarges that digit in the tail.
            np.testing.assert_allclose(ours.betas, betas, atol=2e-5)
            np.testing.assert_allclose(ours.alphas_cumprod, alphas, rtol=5e-5, atol=2e-6)
            assert ours.alphas_cumprod[-1] == alphas[-1] == 0
        else:
            np.testing.assert_allclose(ours.betas, betas, rtol=3e-7)
            np.testing.assert_allclose(ours.alphas_cumprod, alphas, rtol=3e-7)


def test_random_add_noise_matches_diffusers():
    random = np.random.default_rng(5)
    for prediction in ("epsilon", "v_prediction"):
        config = SDXL | {"prediction_type": prediction, "rescale_betas_zero_snr": True}
        theirs = make_theirs("DDPMScheduler", config)
        ours = DDPMScheduler.from_config(config)
        for shape in ((6,), (6, 3), (6, 2, 3, 4, 5)):
            sample, noise = random.standard_normal((2, *shape)).astype(np.float32)
            timesteps = random.integers(0, 1000, 6)
            arguments = [torch.tensor(a) for a in (sample, noise, timesteps)]
            noisy = theirs.add_noise(*arguments).numpy()
            velocity = theirs.get_velocity(*arguments).numpy()
            assert relative_error(ours.add_noise(sample, noise, timesteps), noisy) <= BOUND
            assert relative_error(ours.velocity(sample, noise, timesteps), velocity) <= BOUND


def test_zero_terminal_snr_ends_in_noise():
    scheduler = DDPMScheduler.from_config(SDXL | {"rescale_betas_zero_snr": True})
    sample, noise = np.float32([[1.0, 2.0]]), np.float32([[3.0, -4.0]])
    np.testing.assert_array_equal(scheduler.add_noise(sample, noise, 999), noise)
    np.testing.assert_array_equal(scheduler.velocity(sample, noise, 999), -sample)
    assert scheduler.snr(999) == 0
    # The first timestep keeps its level.
    plain = DDPMScheduler.from_config(SDXL)
    assert scheduler.snr(0) == pytest.approx(float(plain.snr(0)), rel=1e-4)
    # Samplers in the picture of noise levels take a finite one.
    assert training_sigmas(scheduler.noise_schedule)[-1] == pytest.approx(4096, rel=1e-6)


def test_one_timestep_for_a_whole_batch(schedule):
    sample = np.ones((3, 2), np.float32)
    scalar = schedule.add_noise(sample, 2 * sample, 100)
    vector = schedule.add_noise(sample, 2 * sample, np.array([100, 100, 100]))
    np.testing.assert_array_equal(scalar, vector)


def test_half_precision_is_widened(schedule):
    sample = np.float32([[0.5, -1.25]]).astype(ml_dtypes.bfloat16)
    result = schedule.add_noise(sample, sample, np.array([500]))
    assert result.dtype == jnp.float32
    expected = schedule.add_noise(sample.astype(np.float32), sample.astype(np.float32), [500])
    np.testing.assert_array_equal(result, expected)


def test_traced_timesteps(schedule):
    sample = np.ones((2, 3), np.float32)
    timesteps = np.array([5, 900])
    jitted = jax.jit(schedule.add_noise)(sample, 0.5 * sample, timesteps)
    np.testing.assert_allclose(jitted, schedule.add_noise(sample, 0.5 * sample, timesteps), 1e-6)


def test_a_timestep_past_the_end_is_not_clamped(schedule):
    assert np.isnan(schedule.snr(np.array([1000]))).all()


def test_variance_exploding_samplers_train_variance_preserving():
    # diffusers' Euler adds noise in its own picture; training wants that of DDPM.
    euler, ddpm = (cls.from_config(SDXL) for cls in (EulerDiscreteScheduler, DDPMScheduler))
    x = np.ones((1, 4), np.float32)
    np.testing.assert_array_equal(euler.add_noise(x, x, 300), ddpm.add_noise(x, x, 300))


def test_both_ends_are_exact():
    for count in (3, 10, 77, 999, 1000):
        betas = make_betas("linear", 0.00085, 0.012, count)
        assert (betas[0], betas[-1]) == (np.float32(0.00085), np.float32(0.012))


def test_one_training_timestep():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make_betas("linear", 0.1, 0.2, 1) == np.float32([0.1])
