"""AdamW, clipping and learning rates against PyTorch and diffusers."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
from diffusers.optimization import get_scheduler

from hotshot_jax.choices import LEARNING_RATE_SCHEDULES
from hotshot_jax.errors import UsageError
from hotshot_jax.training.adam_8bit import dequantise, quantise
from hotshot_jax.training.optimizer import (
    OptimizerConfig,
    clip_by_global_norm,
    learning_rate_schedule,
    make_optimizer,
    without_moments,
)

STEPS = 12


def _gradients(shape: tuple[int, ...]) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape, np.float32) * 3 for _ in range(STEPS)]


def _trained(config: OptimizerConfig, start: np.ndarray, gradients: list[np.ndarray]) -> np.ndarray:
    optimizer = make_optimizer(config, learning_rate_schedule("linear", 0.01, 3, STEPS))
    parameters = {"weight": jnp.asarray(start)}
    state = optimizer.init(parameters)

    @jax.jit
    def step(parameters, state, gradient):
        clipped, _ = clip_by_global_norm({"weight": gradient}, config.max_grad_norm)
        updates, state = optimizer.update(clipped, state, parameters)
        return optax.apply_updates(parameters, updates), state

    for gradient in gradients:
        parameters, state = step(parameters, state, gradient)
    return np.asarray(parameters["weight"])


def test_steps_equal_those_of_torch() -> None:
    start = np.random.default_rng(1).standard_normal((40, 30), np.float32)
    gradients = _gradients(start.shape)
    config = OptimizerConfig(0.8, 0.95, weight_decay=0.1, epsilon=1e-6, max_grad_norm=2.0)

    parameter = torch.nn.Parameter(torch.tensor(start))
    adam = torch.optim.AdamW([parameter], lr=0.01, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6)
    rates = get_scheduler("linear", adam, num_warmup_steps=3, num_training_steps=STEPS)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([parameter], 2.0)
        adam.step()
        rates.step()
    # A dozen float32 steps of 0.01 each.
    got = _trained(config, start, gradients)
    np.testing.assert_allclose(got, parameter.detach().numpy(), atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_without_its_moments_adam_starts_anew_at_the_same_place_of_the_schedule(
    name: str,
) -> None:
    config = OptimizerConfig(weight_decay=0.0, name=name)
    schedule = learning_rate_schedule("linear", 0.01, 3, STEPS)
    optimizer = make_optimizer(config, schedule)
    parameters = {"weight": jnp.ones((8, 300))}
    fresh = state = optimizer.init(parameters)
    gradients = [{"weight": jnp.asarray(each)} for each in _gradients((8, 300))]
    for gradient in gradients[:5]:
        _, state = optimizer.update(gradient, state, parameters)
    updates, state = optimizer.update(gradients[5], without_moments(state, fresh), parameters)
    # Adam's first update is the sign of the gradient, times the learning rate: the sixth one.
    expected = -float(schedule(5)) * np.sign(gradients[5]["weight"])
    np.testing.assert_allclose(updates["weight"], expected, rtol=0.02)


@pytest.mark.parametrize("most", [0.5, 100.0])
def test_clipping_equals_that_of_torch(most: float) -> None:
    gradient = _gradients((7, 5))[0] * 1e-3
    parameter = torch.nn.Parameter(torch.zeros(7, 5))
    parameter.grad = torch.tensor(gradient)
    expected_norm = torch.nn.utils.clip_grad_norm_([parameter], most * 1e-3)
    clipped, norm = clip_by_global_norm({"x": jnp.asarray(gradient)}, most * 1e-3)
    assert float(norm) == pytest.approx(float(expected_norm), rel=1e-6)
    np.testing.assert_allclose(clipped["x"], parameter.grad.numpy(), rtol=1e-6)


def test_without_a_norm_gradients_stay() -> None:
    gradient = jnp.full((3,), 1e6)
    np.testing.assert_array_equal(clip_by_global_norm({"x": gradient}, 0.0)[0]["x"], gradient)


@pytest.mark.parametrize("name", LEARNING_RATE_SCHEDULES)
def test_learning_rates_equal_those_of_diffusers(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    expected = get_scheduler(name, optimizer, num_warmup_steps=4, num_training_steps=STEPS)
    schedule = learning_rate_schedule(name, 0.3, 4, STEPS)
    rates = []
    for _ in range(STEPS + 3):
        rates.append(expected.get_last_lr()[0])
        optimizer.step()
        expected.step()
    got = [float(schedule(jnp.int32(count))) for count in range(STEPS + 3)]
    # float32 against float64.
    np.testing.assert_allclose(got, rates, rtol=1e-5, atol=1e-8)


def test_an_unknown_schedule_and_a_warmup_past_the_end_are_refused() -> None:
    with pytest.raises(UsageError, match="`lr_scheduler` square is unknown; expected linear"):
        learning_rate_schedule("square", 1.0, 0, 10)
    with pytest.raises(UsageError, match="`lr_warmup_steps` 10 is not shorter than the run"):
        learning_rate_schedule("cosine", 1.0, 10, 10)


@pytest.mark.parametrize("signed", [True, False])
def test_eight_bits_keep_a_value_to_a_few_percent(signed: bool) -> None:
    values = np.random.default_rng(2).standard_normal((16, 512), np.float32)
    values = values if signed else values**2
    stored = quantise(jnp.asarray(values), signed=signed)
    assert stored.codes.dtype == jnp.uint8 and stored.scales.shape == (16, 2)
    error = np.abs(np.asarray(dequantise(stored, signed=signed)) - values)
    largest = np.abs(values).reshape(16, 2, 256).max(-1).repeat(256, -1).reshape(values.shape)
    # The widest gap of the table is 1/64 signed, 1/128 unsigned, and rounding halves it.
    assert (error <= largest * (1 / 128 if signed else 1 / 256) + 1e-7).all()


def test_eight_bit_steps_stay_near_the_exact_ones() -> None:
    start = np.random.default_rng(3).standard_normal((32, 512), np.float32)
    gradients = _gradients(start.shape)
    exact = _trained(OptimizerConfig(), start, gradients) - start
    stored = _trained(OptimizerConfig(name="adamw_8bit"), start, gradients) - start
    assert np.corrcoef(exact.ravel(), stored.ravel())[0, 1] > 0.99
    assert np.abs(stored).max() < 1.5 * np.abs(exact).max()


def test_moments_of_eight_bits_take_a_byte() -> None:
    optimizer = make_optimizer(OptimizerConfig(name="adamw_8bit"), lambda count: 0.1)
    state = optimizer.init({"large": jnp.zeros((256, 256)), "small": jnp.zeros(16)})
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert size < 2 * 256 * 256 * 1.02 + 200


@pytest.mark.parametrize(
    ("name", "value", "flag"),
    [
        ("beta1", 1.0, "adam_beta1"),
        ("beta2", -0.1, "adam_beta2"),
        ("weight_decay", float("nan"), "adam_weight_decay"),
        ("epsilon", -1e-8, "adam_epsilon"),
        ("max_grad_norm", float("inf"), "max_grad_norm"),
    ],
)
def test_values_that_make_no_sense_are_refused(name: str, value: float, flag: str) -> None:
    with pytest.raises(UsageError, match=f"`{flag}` is "):
        OptimizerConfig(**{name: value}).check()
