"""What holds for every scheduler."""

import dataclasses

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers_oracle import (
    BOUND,
    LATENTS,
    NOISES,
    SDXL,
    jitted_call,
    make_theirs,
    noise_by_call,
    relative_error,
    run,
    waves,
)

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.schedulers import (
    CLASSES,
    SHORT_NAMES,
    DDIMScheduler,
    EulerDiscreteScheduler,
    make_scheduler,
)

SHORT = list(SHORT_NAMES)


def make(name):
    return make_scheduler(name, SDXL)


@pytest.mark.parametrize("name", SHORT)
def test_scan_equals_the_loop(name):
    scheduler = make(name)
    schedule = scheduler.schedule(9)

    @jax.jit
    def scanned(sample):
        def body(carry, inputs):
            sample, state = carry
            row, wave, noise = inputs
            output = 0.3 * scheduler.scale_model_input(row, sample) + 0.1 * wave
            sample, state = scheduler.step(row, state, output, sample, noise)
            return (sample, state), sample

        inputs = (schedule.steps, waves(schedule.timesteps), noise_by_call(schedule, NOISES))
        return jax.lax.scan(body, (sample, scheduler.init_state(sample)), inputs)[1]

    result = scanned(jnp.asarray(LATENTS) * np.float32(schedule.init_noise_sigma))
    # The same operations, fused differently: a few float32 roundings a call.
    assert relative_error(np.asarray(result), run(scheduler, schedule)) < 1e-6


@pytest.mark.parametrize("name", SHORT)
def test_jit_equals_eager(name):
    scheduler = make(name)
    schedule = scheduler.schedule(4)
    noise, wave = noise_by_call(schedule, NOISES), waves(schedule.timesteps)
    sample = jnp.asarray(LATENTS) * np.float32(schedule.init_noise_sigma)
    state = scheduler.init_state(sample)
    for i in range(schedule.calls):
        row = schedule.row(i)
        output = 0.3 * scheduler.scale_model_input(row, sample) + 0.1 * wave[i]
        sample, state = scheduler.step(row, state, output, sample, noise[i])
    assert relative_error(np.asarray(sample), run(scheduler, schedule)[-1]) < 1e-6


@pytest.mark.parametrize("name", SHORT)
def test_one_compiled_step_serves_every_number_of_steps(name):
    scheduler = make(name)
    traces = []

    @jax.jit
    def step(row, state, sample, noise):
        traces.append(name)
        return scheduler.step(row, state, 0.3 * sample, sample, noise)

    for steps in (1, 3, 20):
        schedule = scheduler.schedule(steps)
        sample, state = jnp.asarray(LATENTS), scheduler.init_state(LATENTS)
        for i in range(schedule.calls):
            sample, state = step(schedule.row(i), state, sample, NOISES[i])
    assert len(traces) == 1


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, np.float16])
@pytest.mark.parametrize("name", SHORT)
def test_half_precision_is_widened_and_stays_float32(name, dtype):
    scheduler = make(name)
    schedule = scheduler.schedule(3)
    row, state = schedule.row(0), scheduler.init_state(LATENTS)
    narrow = [x.astype(dtype) for x in (LATENTS, 2 * LATENTS, NOISES[0])]
    wide = [x.astype(np.float32) for x in narrow]
    result, after = scheduler.step(row, state, *narrow)
    expected, _ = scheduler.step(row, state, *wide)
    assert result.dtype == jnp.float32
    np.testing.assert_array_equal(result, expected)
    made = (after, scheduler.init_state(narrow[0]), scheduler.scale_model_input(row, narrow[0]))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(made))


@pytest.mark.parametrize("name", SHORT)
def test_state_keeps_its_structure(name):
    scheduler = make(name)
    state = scheduler.init_state(LATENTS)
    row = scheduler.schedule(3).row(0)
    sample, after = scheduler.step(row, state, LATENTS, LATENTS, NOISES[0])
    assert sample.shape == LATENTS.shape
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, state)


@pytest.mark.parametrize("name", SHORT)
def test_state_can_be_donated(name):
    leaves = jax.tree.leaves(make(name).init_state(LATENTS))
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)


@pytest.mark.parametrize("name", SHORT)
def test_tables(name):
    schedule = make(name).schedule(6)
    for table in jax.tree.leaves(schedule.steps):
        assert table.dtype == np.float32
        assert len(table) == schedule.calls
    assert schedule.draws_noise.dtype == np.bool_
    assert len(schedule.timesteps) == schedule.calls
    if schedule.sigmas is not None:
        assert schedule.sigmas.dtype == np.float32


@pytest.mark.parametrize("name", SHORT)
def test_any_layout_and_rank(name):
    scheduler = make(name)
    schedule = scheduler.schedule(3)
    whole = run(scheduler, schedule)
    flat = run(scheduler, schedule, LATENTS.ravel(), NOISES.reshape(len(NOISES), -1))
    np.testing.assert_allclose(flat.reshape(whole.shape), whole, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("steps", [0, -1, 1001, 2.5, True, None])
def test_bad_number_of_steps(name, steps):
    with pytest.raises(UsageError, match="num_inference_steps"):
        make(name).schedule(steps)


@pytest.mark.parametrize("name", [name for name in SHORT if make(name).stochastic])
def test_stochastic_steps_need_noise(name):
    scheduler = make(name)
    with pytest.raises(ValueError, match="noise"):
        scheduler.step(
            scheduler.schedule(2).row(0), scheduler.init_state(LATENTS), LATENTS, LATENTS
        )


@pytest.mark.parametrize("name", [name for name in SHORT if not make(name).stochastic])
def test_deterministic_steps_ignore_noise(name):
    scheduler = make(name)
    row, state = scheduler.schedule(2).row(0), scheduler.init_state(LATENTS)
    without, _ = scheduler.step(row, state, LATENTS, LATENTS)
    with_nan, _ = scheduler.step(row, state, LATENTS, LATENTS, np.nan * LATENTS)
    np.testing.assert_array_equal(without, with_nan)


@pytest.mark.parametrize("name", ["euler_ancestral", "ddim", "ddpm", "lcm", "dpmpp_2m_sde"])
def test_a_generator_stays_in_step_with_diffusers(name):
    cls, implied = SHORT_NAMES[name]
    theirs = make_theirs(cls.__name__, {**SDXL, **implied}, 6)
    scheduler, arguments = make(name), {}
    if name == "ddim":
        scheduler, arguments = dataclasses.replace(scheduler, eta=0.5), {"eta": 0.5}
    schedule = scheduler.schedule(6)

    ours_generator, their_generator = (torch.Generator().manual_seed(3) for _ in range(2))
    x = torch.tensor(LATENTS) * theirs.init_noise_sigma
    sample = jnp.asarray(x.numpy())
    state = scheduler.init_state(sample)
    wave = waves(schedule.timesteps)
    for i, t in enumerate(theirs.timesteps):
        output = 0.3 * theirs.scale_model_input(x, t) + 0.1 * torch.tensor(wave[i])
        x = theirs.step(output, t, x, generator=their_generator, **arguments).prev_sample
        noise = np.zeros_like(LATENTS)
        if schedule.draws_noise[i]:
            noise = torch.randn(LATENTS.shape, generator=ours_generator).numpy()
        sample, state = jitted_call(scheduler, schedule.row(i), state, sample, wave[i], noise)
    assert relative_error(np.asarray(sample), x.numpy()) <= BOUND
    assert torch.equal(ours_generator.get_state(), their_generator.get_state())


def test_schedulers_are_immutable_and_hashable():
    scheduler = make("euler")
    with pytest.raises(dataclasses.FrozenInstanceError):
        scheduler.beta_end = 0.5
    assert scheduler == make("euler") and hash(scheduler) == hash(make("euler"))
    assert scheduler != make("heun")


def test_trained_betas():
    betas = np.linspace(0.001, 0.02, 10).tolist()
    scheduler = DDIMScheduler.from_config(
        {"trained_betas": betas, "num_train_timesteps": 10, "timestep_spacing": "leading"}
    )
    np.testing.assert_array_equal(scheduler.noise_schedule.betas, np.float32(betas))
    assert scheduler.schedule(5).timesteps.tolist() == [8, 6, 4, 2, 0]
    with pytest.raises(HotshotError, match=r"trained_betas.*1000 values"):
        DDIMScheduler.from_config({"trained_betas": betas})
    with pytest.raises(HotshotError, match=r"trained_betas.*between 0 and 1"):
        DDIMScheduler.from_config({"trained_betas": [0.5, 1.5], "num_train_timesteps": 2})
    for wrong in (["a", "b"], [[0.1], [0.2, 0.3]], "betas", 0.5):
        with pytest.raises(HotshotError, match="trained_betas"):
            DDIMScheduler.from_config({"trained_betas": wrong, "num_train_timesteps": 2})


def test_a_configuration_without_finite_steps_is_refused():
    # The levels would start below 0 for which no logarithm exists.
    scheduler = EulerDiscreteScheduler.from_config(SDXL)
    object.__setattr__(scheduler, "sigma_max", float("nan"))
    object.__setattr__(scheduler, "use_karras_sigmas", True)
    with pytest.raises(HotshotError, match="no finite step"):
        scheduler.schedule(3)


@pytest.mark.parametrize("name", CLASSES)
def test_training_side_is_that_of_the_noise_schedule(name):
    scheduler = CLASSES[name].from_config(SDXL)
    timesteps = np.array([17])
    for method in ("add_noise", "velocity"):
        np.testing.assert_array_equal(
            getattr(scheduler, method)(LATENTS, NOISES[0], timesteps),
            getattr(scheduler.noise_schedule, method)(LATENTS, NOISES[0], timesteps),
        )
    np.testing.assert_array_equal(scheduler.snr(timesteps), scheduler.noise_schedule.snr(timesteps))
