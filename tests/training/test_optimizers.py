"""Each optimiser against an independent one, on given gradients."""

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import prodigyopt
import pytest
import schedulefree
import torch

from hotshot_jax.choices import OPTIMIZERS
from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.optimizer import (
    OptimizerConfig,
    Schedule,
    learning_rate_schedule,
    make_optimizer,
    weights_to_show,
)
from hotshot_jax.training.running.checkpoint import Checkpoints, Saved, restore
from hotshot_jax.training.running.step import StepConfig, Trainer, TrainState
from hotshot_jax.training.scaling import kept_still, without

STEPS = 100
Arrays = dict[str, np.ndarray]


def drawn(seed: int, scale: float = 1.0) -> Arrays:
    """A matrix, a convolution, a stack of matrices and a vector; not all equally large."""
    generator = np.random.default_rng(seed)
    shapes = {
        "in/kernel": (12, 9), "conv/kernel": (3, 3, 4, 5), "blocks/kernel": (2, 6, 8),
        "in/bias": (11,),
    }  # fmt: skip
    return {
        name: scale * generator.standard_normal(shape, np.float32) for name, shape in shapes.items()
    }


def gradients() -> list[Arrays]:
    """Of very different sizes, with a drift, without which Prodigy learns no learning rate."""
    drift = drawn(2000, 0.1)
    return [
        {name: leaf + drift[name] for name, leaf in drawn(seed, 10.0 ** (seed % 3 - 2)).items()}
        for seed in range(STEPS)
    ]


def rates(peak: float) -> tuple[Schedule, list[float]]:
    """With a warm-up from zero, and as numbers."""
    schedule = learning_rate_schedule("constant_with_warmup", peak, 10, STEPS)
    return schedule, [float(schedule(step)) for step in range(STEPS)]


def trained(
    config: OptimizerConfig,
    schedule: Schedule,
    start: Arrays,
    factors: Mapping[str, float] | None = None,
) -> Arrays:
    """What `STEPS` updates make of parameters, as they would be exported."""
    factors = factors or {}
    optimizer = make_optimizer(config, schedule, factors)
    parameters = jax.tree.map(jnp.asarray, start)
    state = optimizer.init(parameters)

    def step(carry: Any, given: Any) -> Any:
        parameters, state = carry
        updates, state = optimizer.update(without(given, factors), state, parameters)
        return (optax.apply_updates(parameters, updates), state), None

    stacked = {name: np.stack([each[name] for each in gradients()]) for name in start}
    with jax.default_matmul_precision("highest"):
        (parameters, state), _ = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(
            (parameters, state), stacked
        )
    shown = kept_still(weights_to_show(parameters, state), parameters, factors)
    return {name: np.asarray(leaf) for name, leaf in shown.items()}


def trained_in_torch(
    make: Callable[[Iterable[Any]], torch.optim.Optimizer],
    rates: list[float],
    start: Arrays,
    factors: Mapping[str, float] | None = None,
    units: Mapping[str, float] | None = None,
) -> Arrays:
    """The same in PyTorch, each parameter in a group of its own and counted in its own unit."""
    factors, units = factors or {}, units or {}
    parameters = {name: torch.nn.Parameter(torch.tensor(leaf)) for name, leaf in start.items()}
    optimizer: Any = make([{"params": [parameter]} for parameter in parameters.values()])
    averages = hasattr(optimizer, "eval")
    if averages:
        optimizer.train()
    for rate, given in zip(rates, gradients(), strict=True):
        for group, (name, parameter) in zip(
            optimizer.param_groups, parameters.items(), strict=True
        ):
            group["lr"] = rate * factors.get(name, 1.0)
            parameter.grad = torch.tensor(given[name] * np.float32(units.get(name, 1)))
        optimizer.step()
    if averages:
        optimizer.eval()
    return {name: leaf.detach().numpy() for name, leaf in parameters.items()}


def check(
    found: Mapping[str, Any],
    wanted: Mapping[str, Any],
    start: Arrays,
    factors: Mapping[str, float] | None = None,
) -> None:
    for name, leaf in wanted.items():
        if (factors or {}).get(name) == 0:
            np.testing.assert_array_equal(found[name], start[name])
            continue
        moved = np.linalg.norm(leaf - start[name])
        assert moved > 1e-3
        assert np.linalg.norm(found[name] - leaf) < 1e-4 * moved, name


class TorchLion(torch.optim.Optimizer):
    """Algorithm 2 of Chen et al. 2023."""

    def __init__(self, params: Any, beta1: float, beta2: float, decay: float):
        super().__init__(params, {"lr": 0.0})
        self.numbers = beta1, beta2, decay

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        beta1, beta2, decay = self.numbers
        for group in self.param_groups:
            for p in group["params"]:
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                c = beta1 * m + (1 - beta1) * p.grad
                p -= group["lr"] * (c.sign() + decay * p)
                m.copy_(beta2 * m + (1 - beta2) * p.grad)


NUMBERS = {"beta1": 0.8, "beta2": 0.95, "weight_decay": 0.1, "epsilon": 1e-6}
TORCH: dict[str, tuple[float, Callable[[Any], torch.optim.Optimizer]]] = {
    "adamw": (
        0.01,
        lambda p: torch.optim.AdamW(p, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6),
    ),
    # Parameters as small as these keep moments of four bytes.
    "adamw_8bit": (
        0.01,
        lambda p: torch.optim.AdamW(p, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6),
    ),
    "adafactor": (0.3, lambda p: torch.optim.Adafactor(p, weight_decay=0.1)),
    "lion": (0.01, lambda p: TorchLion(p, 0.8, 0.95, 0.1)),
    "prodigy": (
        1.0,
        lambda p: prodigyopt.Prodigy(
            p, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6,
            use_bias_correction=True, safeguard_warmup=True,
        ),
    ),
    "schedule_free": (
        0.01,
        lambda p: schedulefree.AdamWScheduleFree(p, betas=(0.8, 0.95), weight_decay=0.1, eps=1e-6),
    ),
}  # fmt: skip


FACTORS = {"in/kernel": 0.3, "conv/kernel": 2.5, "in/bias": 0.0}
"""Of the learning rate; the stack of matrices has 1."""
with_and_without_factors = pytest.mark.parametrize("factors", [{}, FACTORS], ids=["", "factors"])


@with_and_without_factors
@pytest.mark.parametrize("name", [name for name in TORCH if name != "prodigy"])
def test_a_hundred_steps_equal_those_of_an_independent_optimiser(
    name: str, factors: Mapping[str, float]
) -> None:
    peak, make = TORCH[name]
    schedule, listed = rates(peak)
    start = drawn(1000)
    if name == "adafactor":
        # PyTorch puts height and width last, and would divide the moments by them.
        del start["conv/kernel"]
    found = trained(OptimizerConfig(**NUMBERS, name=name), schedule, start, factors)
    check(found, trained_in_torch(make, listed, start, factors), start, factors)


@with_and_without_factors
def test_prodigy_counts_each_parameter_in_units_of_its_factor(
    factors: Mapping[str, float],
) -> None:
    # The first steps are of a millionth, and would drown in the digits of larger ones.
    start = drawn(1000, 1e-3)
    schedule, listed = rates(1.0)
    found = trained(OptimizerConfig(**NUMBERS, name="prodigy"), schedule, start, factors)
    # PyTorch has no rate of 0 here: its first step would not be taken.
    listed[0] = 1e-30
    # What stands still has no say in the rate that is found. The package has one rate for all; with
    # another unit for a parameter its steps are as many times larger. Its decay is not.
    units = {name: factors.get(name, 1.0) for name in start if factors.get(name) != 0}

    def make(groups: Any) -> torch.optim.Optimizer:
        for group, unit in zip(groups, units.values(), strict=True):
            group["weight_decay"] = 0.1 * unit
        return TORCH["prodigy"][1](groups)

    in_units = {name: start[name] / np.float32(unit) for name, unit in units.items()}
    wanted = trained_in_torch(make, listed, in_units, units=units)
    moved = {name: leaf * units[name] for name, leaf in wanted.items()}
    still = {name: start[name] for name in start.keys() - units.keys()}
    check(found, {**moved, **still}, start, factors)


def muon_float64(
    listed: list[float], start: Arrays, factors: Mapping[str, float] | None = None
) -> Arrays:
    """Momentum made orthogonal by five steps of Newton and Schulz; AdamW with Nesterov's momentum
    for the vector."""
    values = {name: leaf.astype(np.float64) for name, leaf in start.items()}
    first = {name: np.zeros_like(leaf) for name, leaf in values.items()}
    second = np.zeros_like(values["in/bias"])
    for t, (rate, given) in enumerate(zip(listed, gradients(), strict=True), start=1):
        for name, value in values.items():
            g = given[name].astype(np.float64)
            beta = 0.8 if name == "in/bias" else 0.95
            first[name] = beta * first[name] + (1 - beta) * g
            looked = beta * first[name] / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t)
            if name == "in/bias":
                second = 0.95 * second + 0.05 * g**2
                step = looked / (np.sqrt(second / (1 - 0.95**t)) + 1e-6)
            elif name == "blocks/kernel":
                step = np.stack([orthogonal(layer) for layer in looked])
            else:
                step = orthogonal(looked.reshape(-1, looked.shape[-1])).reshape(looked.shape)
            values[name] = value - rate * (factors or {}).get(name, 1.0) * (step + 0.1 * value)
    return values


def orthogonal(x: np.ndarray) -> np.ndarray:
    if len(x) > x.shape[1]:
        return orthogonal(x.T).T
    size = 0.2 * math.sqrt(max(x.shape))
    x = x / (np.linalg.norm(x) + 1e-6)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return size * x


@with_and_without_factors
def test_muon_equals_its_formulas(factors: Mapping[str, float]) -> None:
    schedule, listed = rates(0.01)
    start = drawn(1000)
    found = trained(OptimizerConfig(**NUMBERS, name="muon"), schedule, start, factors)
    check(found, muon_float64(listed, start, factors), start, factors)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_may_go_on_with_other_factors(name: str) -> None:
    def paths(factors: Mapping[str, float]) -> list[str]:
        optimizer = make_optimizer(OptimizerConfig(name=name), lambda count: 0.1, factors)
        state = jax.eval_shape(optimizer.init, drawn(0))
        leaves = jax.tree_util.tree_flatten_with_path(state)[0]
        return [f"{jax.tree_util.keystr(path)} {leaf}" for path, leaf in leaves]

    assert paths(FACTORS) == paths({})


class Held:
    """What a trainer trains, where only its updates are looked at."""


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_saved_state_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    trainer = Trainer(
        Held(),  # type: ignore[arg-type]
        make_scheduler("DDPMScheduler", {}),
        StepConfig(optimizer=OptimizerConfig(name=name), accumulation_steps=2),
        learning_rate_schedule("constant_with_warmup", 0.01, 3, STEPS),
    )
    start = drawn(1000)
    # One that moments of eight bits are kept of.
    start["large/kernel"] = np.random.default_rng(0).standard_normal((64, 64), np.float32)

    def begin() -> TrainState:
        return trainer.init({k: jnp.array(v, copy=True) for k, v in start.items()}, 0)

    program: Any = jax.jit(trainer.apply, static_argnames="last", donate_argnums=0)

    def update(state: TrainState, step: int) -> TrainState:
        given = {
            name: np.random.default_rng(step).standard_normal(leaf.shape, np.float32)
            for name, leaf in start.items()
        }
        state, _ = program(state, given, {}, last=False)
        return program(state, given, {}, last=True)[0]

    state = begin()
    for step in range(4):
        state = update(state, step)
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, 4, {})
    checkpoints.close()
    resumed = restore(Saved(tmp_path, 4), begin())
    state, resumed = update(state, 4), update(resumed, 4)
    assert int(resumed.step) == 5
    jax.tree.map(np.testing.assert_array_equal, state, resumed)
    jax.tree.map(np.testing.assert_array_equal, trainer.result(state), trainer.result(resumed))
    assert (name == "schedule_free") != np.array_equal(
        trainer.result(state)["in/kernel"], state.trained["in/kernel"]
    )


def test_an_unknown_one_and_an_average_without_a_share_are_refused() -> None:
    for config, message in (
        (OptimizerConfig(name="adam"), "`optimizer` adam is unknown; expected adamw, "),
        (OptimizerConfig(name="schedule_free", beta1=0.0), "`adam_beta1` is 0"),
    ):
        with pytest.raises(UsageError, match=message):
            config.check()
