"""The training step by itself: accumulation, averages, dropped text, memory, overfitting."""

from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from hotshot_jax.choices import SNR_WEIGHTS
from hotshot_jax.convert.builders import model_builder
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.loss import (
    Draws,
    LossConfig,
    diffusion_loss,
    draw,
    min_snr_weights,
    offset_noise,
    per_sample_loss,
)
from hotshot_jax.training.optimizer import OptimizerConfig
from hotshot_jax.training.running.step import StepConfig, Trainer, compile_step
from hotshot_jax.training.trainees.trainee import Division
from tests.tiny_checkpoint import tiny_configs
from tests.training.batches import random_batch


@pytest.fixture(scope="module")
def unet() -> Any:
    build = model_builder("unet", tiny_configs()["unet"], where="unet")
    return jax.jit(lambda: build(nnx.Rngs(0)))()


def batch(unet: Any, samples: int = 2) -> dict[str, jax.Array]:
    return random_batch(unet, samples, frames=4)


def trainer(unet: Any, selection: str = "temporal", rate: float = 1e-3, **options: Any) -> Trainer:
    return Trainer(
        Division.of(unet, selection),
        make_scheduler("DDPMScheduler", {}),
        StepConfig(**options),
        lambda count: jnp.float32(rate),
    )


def test_accumulated_batches_make_the_gradient_of_their_mean(unet: Any) -> None:
    single = trainer(unet, optimizer=OptimizerConfig(max_grad_norm=0.0))
    double = trainer(unet, accumulation_steps=2, optimizer=OptimizerConfig(max_grad_norm=0.0))
    trained, _ = single.division.split(unet)
    generator = np.random.default_rng(0)
    first, second = (
        {n: jnp.asarray(generator.standard_normal(x.shape, np.float32)) for n, x in trained.items()}
        for _ in range(2)
    )
    mean = {name: (first[name] + second[name]) / 2 for name in trained}
    expected, _ = single.apply(single.init(trained, 0), mean, {})
    state, _ = double.apply(double.init(trained, 0), first, {}, last=False)
    assert int(state.step) == 0
    state, metrics = double.apply(state, second, {}, last=True)
    assert int(state.step) == 1 and "grad_norm" in metrics
    for name in trained:
        np.testing.assert_allclose(state.trained[name], expected.trained[name], rtol=1e-6)
        assert not np.any(state.gathered[name])


def test_the_moving_average_follows_what_trains(unet: Any) -> None:
    training = trainer(unet, rate=0.1, ema_decay=0.75)
    trained, _ = training.division.split(unet)
    gradients = {name: jnp.ones_like(leaf) for name, leaf in trained.items()}
    state, _ = training.apply(training.init(trained, 0), gradients, {})
    for name, leaf in trained.items():
        expected = 0.75 * leaf + 0.25 * state.trained[name]
        np.testing.assert_allclose(state.average[name], expected, atol=1e-6)


def test_text_is_dropped_for_the_asked_fraction(unet: Any) -> None:
    training = trainer(unet, text_dropout=0.25)
    arrays = batch(unet, samples=400)
    dropped = training._drop_text(arrays, jax.random.key(0))
    gone = (np.asarray(dropped["pooled"]) == np.asarray(arrays["empty_pooled"])).all(1)
    gone_hidden = (np.asarray(dropped["hidden"]) == np.asarray(arrays["empty_hidden"])).all((1, 2))
    np.testing.assert_array_equal(gone, gone_hidden)
    # Binomial of 400 with p 0.25: three standard deviations are 26.
    assert abs(gone.sum() - 100) < 26


def test_noise_has_the_offset_s_variance_and_depends_on_the_key_alone() -> None:
    config = LossConfig(noise_offset=0.5)
    shape = (64, 2, 4, 4, 4)
    draws = draw(jax.random.key(1), shape, config, 1000)
    again = draw(jax.random.key(1), shape, config, 1000)
    np.testing.assert_array_equal(draws.noise, again.noise)
    means = np.asarray(draws.noise).mean((1, 2, 3))
    # 0.25 of the offset, 1/32 of the noise itself; 256 means.
    assert means.var() == pytest.approx(0.25 + 1 / 32, rel=0.3)
    assert draws.timesteps.shape == (64,)
    assert int(draws.timesteps.min()) >= 0 and int(draws.timesteps.max()) < 1000
    np.testing.assert_array_equal(offset_noise(jnp.zeros(3), jnp.ones(3), 0.5), 0.5 * np.ones(3))


def test_losses_by_formula() -> None:
    error = jnp.asarray([[0.05], [2.0]])[..., None, None, None]
    zero = jnp.zeros_like(error)
    np.testing.assert_allclose(per_sample_loss(error, zero, "mse"), [0.0025, 4.0], rtol=1e-6)
    np.testing.assert_allclose(per_sample_loss(error, zero, "huber"), [0.0125, 1.95], rtol=1e-6)


@pytest.mark.parametrize("zero_snr", [False, True])
@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_min_snr_weights_are_diffusers_and_the_reference_s_under_their_names(
    kind: str, zero_snr: bool
) -> None:
    import torch
    from diffusers import DDPMScheduler
    from diffusers.training_utils import compute_snr

    config = {"prediction_type": kind, "rescale_betas_zero_snr": zero_snr}
    timesteps = [0, 10, 300, 700, 998, 999]
    snr = compute_snr(DDPMScheduler(**config), torch.tensor(timesteps)).double()
    clipped = snr.clamp(max=5.0)
    # The recipe of diffusers' training scripts, and of kohya-ss/sd-scripts.
    paper = clipped / (snr if kind == "epsilon" else snr + 1)
    wanted = {"paper": paper, "reference": clipped / snr}
    scheduler = make_scheduler("DDPMScheduler", config)
    latents = jnp.ones((1, 1, 2, 2, 4))

    def model(sample: jax.Array, *_: Any, **__: Any) -> jax.Array:
        return jnp.zeros_like(sample)

    for form in SNR_WEIGHTS:
        # 0 / 0 of the formula for epsilon is 1, its limit.
        expected = np.nan_to_num(wanted[form].numpy(), nan=1.0)
        found = min_snr_weights(scheduler.snr(jnp.asarray(timesteps)), 5.0, kind, form)
        np.testing.assert_allclose(found, expected, rtol=3e-4, atol=1e-9)
        text = {"hidden": None, "pooled": None, "time_ids": None}
        for step, weight in zip(timesteps, expected, strict=True):
            draws = Draws(2 * latents, jnp.asarray([step]))
            plain, weighted = (
                diffusion_loss(model, scheduler, LossConfig(0.0, gamma, form), latents, text, draws)
                for gamma in (None, 5.0)
            )
            np.testing.assert_allclose(weighted[0], weight * plain[0], rtol=3e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("platform", "effort", "told"),
    [
        ("cpu", "O2", set()),
        ("gpu", "O2", set()),
        ("tpu", "O2", {"xla_jf_spmd_threshold_for_windowed_einsum_mib"}),
        (
            "tpu",
            "O1",
            {"xla_jf_spmd_threshold_for_windowed_einsum_mib", "xla_optimization_level"},
        ),
    ],
)
def test_what_the_compiler_is_told(platform: str, effort: str, told: set[str]) -> None:
    traced = mock.Mock()
    compile_step(traced, platform, effort)
    (options,) = traced.lower().compile.call_args.args
    assert set(options) == told
