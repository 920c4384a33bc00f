"""Optimisation steps of fine-tuning: loss, gradients, and the parameters after some steps."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import (
    EXACT,
    SINGLE_MODULE,
    WHOLE_MODEL,
    Case,
    Result,
    Verdict,
    compare,
    worst,
)
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_unet
from hotshot_jax.convert.tensors.rules import Slot, torch_slots
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.schedulers.base import Scheduler
from hotshot_jax.training.loss import (
    Draws,
    LossConfig,
    min_snr_weights,
    offset_noise,
    per_sample_loss,
    target,
)
from hotshot_jax.training.optimizer import OptimizerConfig, learning_rate_schedule
from hotshot_jax.training.running.step import StepConfig, Trainer, TrainState
from hotshot_jax.training.trainees.trainee import Division, Parameters, trained_names

# The reference's --snr_gamma is a switch, so that gamma is 1. With an infinite one all weigh 1.
_GAMMAS = {"mse": float("inf"), "snr": 1.0}
# Adam divides a gradient by its own size, so that an element whose gradient is only round-off moves
# anywhere within twice the learning rate. Of the others none may be off; of all, fewer than these.
_ROUND_OFF_GRADIENT = 1e-6
_MOST_STRAYS = 1e-3


def matches(case: Case) -> bool:
    """Whether the case trains."""
    return "optimisation steps" in case.call


def run(case: Case) -> Iterator[Result]:
    """Compares the list of what trains, and for each loss the steps."""
    arguments = case.arguments
    unet = load_unet(case.model("UNet3DConditionModel"))
    wanted = case.description["trained_parameters"]
    trained = trained_names(unet, "temporal")
    yield Result(
        "list of what trains",
        Verdict.OK if trained == wanted else Verdict.FAILED,
        float(trained != wanted),
        EXACT,
    )
    entry = case.description["scheduler"]
    scheduler = make_scheduler(
        entry["class"], {**entry["config"], "prediction_type": arguments["prediction_type"]}
    )
    division = Division.of(unet, "temporal")
    yield from _forward(case, scheduler)
    step = _compiled_step(case, unet, division, scheduler)
    for prefix, gamma in _GAMMAS.items():
        yield from _steps(case, prefix, gamma, step, unet, division)


def _trainer(case: Case, division: Division, scheduler: Scheduler, gamma: Any) -> Trainer:
    arguments = case.arguments
    config = StepConfig(
        loss=LossConfig(
            noise_offset=arguments["noise_offset"], snr_gamma=gamma, snr_weights="reference"
        ),
        optimizer=OptimizerConfig(
            beta1=arguments["betas"][0],
            beta2=arguments["betas"][1],
            weight_decay=arguments["weight_decay"],
            epsilon=arguments["eps"],
            max_grad_norm=arguments["max_grad_norm"],
        ),
    )
    schedule = learning_rate_schedule("constant", arguments["learning_rate"], 0, 1)
    return Trainer(division, scheduler, config, schedule)


def _compiled_step(case: Case, unet: Any, division: Division, scheduler: Scheduler) -> Any:
    """One program for both losses: compiling it takes longer than all steps."""
    latents, text = channels_last(case["latents"]), _text(case)
    _, frozen = division.split(unet)

    @jit_for_few_calls()
    def step(state: TrainState, draws: tuple[jax.Array, jax.Array], gamma: jax.Array) -> Any:
        trainer = _trainer(case, division, scheduler, gamma)
        gradient = jax.value_and_grad(trainer.loss_of, has_aux=True)
        (loss, metrics), gradients = gradient(state.trained, frozen, latents, text, Draws(*draws))
        state, metrics = trainer.apply(state, gradients, {"loss": loss, **metrics})
        return state, gradients, metrics

    return step


def _draws(case: Case, step: int) -> Draws:
    noise = channels_last(case[f"noise.{step}"])
    offset = channels_last(case[f"offset_noise.{step}"])
    return Draws(
        offset_noise(noise, offset, case.arguments["noise_offset"]),
        jnp.asarray(case[f"timesteps.{step}"], jnp.int32),
    )


def _text(case: Case) -> dict[str, jax.Array]:
    return {
        "hidden": jnp.asarray(case["prompt_embeds"]),
        "pooled": jnp.asarray(case["pooled_prompt_embeds"]),
        "time_ids": jnp.asarray(case["time_ids"])[:, 0],
    }


def _forward(case: Case, scheduler: Scheduler) -> Iterator[Result]:
    """What happens up to the loss of the first step."""
    latents, draws = channels_last(case["latents"]), _draws(case, 0)
    noisy = scheduler.add_noise(latents, draws.noise, draws.timesteps)
    wanted = target(scheduler, latents, draws)
    for name, got in (("step0.noisy_latents", noisy), ("step0.target", wanted)):
        yield compare(name, channels_first(got), case[name], SINGLE_MODULE)
    losses = per_sample_loss(channels_last(case["step0.model_pred"]), wanted, "mse")
    yield compare("step0.per_sample_mse", losses, case["step0.per_sample_mse"], SINGLE_MODULE)
    weights = min_snr_weights(scheduler.snr(draws.timesteps), _GAMMAS["snr"])
    yield compare("step0.snr_weights", weights, case["step0.snr_weights"], SINGLE_MODULE)


def _steps(
    case: Case, prefix: str, gamma: float, step: Any, unet: Any, division: Division
) -> Iterator[Result]:
    trained, _ = division.split(unet)
    slots = torch_slots(division.module)
    scheduler = make_scheduler("DDPMScheduler", {})
    state = _trainer(case, division, scheduler, gamma).init(trained, seed=0)
    losses, norms = [], []
    first: Parameters = {}
    for number in range(case.arguments["steps"]):
        draws = _draws(case, number)
        state, gradients, metrics = step(state, (draws.noise, draws.timesteps), jnp.float32(gamma))
        losses.append(metrics["loss"])
        norms.append(metrics["grad_norm"])
        if number == 0:
            first = gradients
            yield from _gradients(case, prefix, slots, gradients)
        stored = f"{prefix}.after{number + 1}."
        if any(name.startswith(stored) for name in case.names):
            yield from _parameters(case, stored, slots, state.trained, first)
    yield compare(f"{prefix}.loss", np.stack(losses), case[f"{prefix}.loss"], WHOLE_MODEL)
    yield compare(f"{prefix}.grad_norm", np.stack(norms), case[f"{prefix}.grad_norm"], WHOLE_MODEL)


def _in_torch(slot: Slot, parameters: Parameters) -> np.ndarray:
    return slot.to_torch(np.asarray(parameters["/".join(map(str, slot.path))]))


def _gradients(
    case: Case, prefix: str, slots: dict[str, Slot], gradients: Parameters
) -> Iterator[Result]:
    stored = f"{prefix}.grad."
    results = []
    largest = max(float(np.abs(case[name]).max()) for name in case.names if name.startswith(stored))
    for name in case.names:
        if name.startswith(stored):
            got = _in_torch(slots[name.removeprefix(stored)], gradients)
            expected = case[name]
            scale = float(np.abs(expected).max())
            # A gradient that is zero but for round-off is measured against the largest of all.
            scaled = scale if scale > _ROUND_OFF_GRADIENT else largest
            results.append(
                compare(name, got / scaled, expected / scaled, WHOLE_MODEL, absolute=True)
            )
    yield worst(f"{stored}* ({len(results)} parameters)", results)
    names = case.description["trained_parameters"]
    lengths = np.array([np.linalg.norm(_in_torch(slots[name], gradients)) for name in names])
    name = f"{prefix}.grad_l2_per_parameter"
    yield compare(name, lengths, case[name], WHOLE_MODEL)


def _parameters(
    case: Case,
    stored: str,
    slots: dict[str, Slot],
    trained: Parameters,
    gradients: Parameters,
) -> Iterator[Result]:
    results, strays, total = [], 0, 0
    structurally_zero = case.description["parameters_with_structurally_zero_gradient"]
    for name in case.names:
        if not name.startswith(stored):
            continue
        parameter = name.removeprefix(stored)
        got, expected = _in_torch(slots[parameter], trained), case[name]
        if parameter in structurally_zero:
            continue
        scale = float(np.abs(expected).max())
        off = np.abs(got - expected) > WHOLE_MODEL * scale
        small = np.abs(_in_torch(slots[parameter], gradients)) < _ROUND_OFF_GRADIENT
        strays += int(off.sum())
        total += off.size
        results.append(compare(name, np.where(small, expected, got), expected, WHOLE_MODEL))
    note = "elements whose gradient is round-off left out"
    yield dataclasses.replace(worst(f"{stored}* ({len(results)} parameters)", results), note=note)
    fraction = strays / total
    yield Result(
        f"{stored}* elements off",
        Verdict.OK if fraction <= _MOST_STRAYS else Verdict.FAILED,
        fraction,
        _MOST_STRAYS,
        "fraction of all elements",
        absolute=True,
    )
