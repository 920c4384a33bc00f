"""Trajectories of schedulers around a model that is a formula."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import (
    EXACT,
    SINGLE_MODULE,
    Case,
    Result,
    Verdict,
    compare,
)
from benchmarks.parity_cases.pipelines.diffusers_differences import known_difference
from hotshot_jax.schedulers import CLASSES, make_scheduler
from hotshot_jax.schedulers.base import Schedule, Scheduler


def matches(case: Case) -> bool:
    """Whether the case lists schedulers."""
    return isinstance(case.description.get("schedulers"), dict)


def run(case: Case) -> Iterator[Result]:
    """Compares timesteps, levels, and the sample after each call."""
    for name, entry in case.description["schedulers"].items():
        yield from _run_one(case, name, entry)


def _run_one(case: Case, name: str, entry: dict[str, Any]) -> Iterator[Result]:
    scheduler = make_scheduler(entry["class"], entry["config"])
    scheduler = dataclasses.replace(scheduler, **entry.get("step_kwargs", {}))
    schedule = scheduler.schedule(entry["num_inference_steps"])
    noise = _noise(case, name, entry)

    def check(what: str, got: Any, expected: np.ndarray, bound: float) -> Result:
        return compare(f"{name} {what}", got, expected, bound)

    timesteps = case[f"{name}.timesteps"]
    whole_numbers = np.issubdtype(timesteps.dtype, np.integer)
    bound = EXACT if whole_numbers else SINGLE_MODULE
    sigma = np.asarray(entry["init_noise_sigma"])
    results = [
        check("timesteps", schedule.timesteps, timesteps, bound),
        check("init_noise_sigma", schedule.init_noise_sigma, sigma, SINGLE_MODULE),
    ]
    if f"{name}.sigmas" in case:
        sigmas = np.zeros(0) if schedule.sigmas is None else schedule.sigmas
        results.append(check("sigmas", sigmas, case[f"{name}.sigmas"], SINGLE_MODULE))
    expected = case[f"{name}.trajectory"]
    trajectory = _trajectory(scheduler, schedule, case["latents"], noise)
    results.append(check("trajectory", trajectory, expected, SINGLE_MODULE))

    difference = known_difference(entry["class"], entry["config"])
    if difference is None or not any(result.verdict.fails for result in results):
        yield from results
        return
    for result in results:
        if result.verdict is Verdict.FAILED:
            held = "held by 0.21.4, which does not step between them"
            note = held if result.what.endswith("sigmas") else difference.sentence
            result = dataclasses.replace(result, verdict=Verdict.DIFFERS, bound=None, note=note)
        yield result
    # What the reference's version did, asked for in the terms of the current one.
    changed = difference.scheduler(CLASSES[entry["class"]], entry["config"])
    schedule = difference.schedule(changed, entry["num_inference_steps"], timesteps)
    trajectory = _trajectory(changed, schedule, case["latents"], noise)
    yield check("trajectory as in 0.21.4", trajectory, expected, SINGLE_MODULE)


def _noise(case: Case, name: str, entry: dict[str, Any]) -> np.ndarray:
    """The noise of each call; zeros in calls that draw none."""
    noise = np.zeros((entry["model_calls"], *case["latents"].shape), np.float32)
    if f"{name}.noise" in case:
        noise[entry["noise_drawn_in_calls"]] = case[f"{name}.noise"]
    return noise


def _trajectory(
    scheduler: Scheduler, schedule: Schedule, latents: np.ndarray, noise: np.ndarray
) -> jax.Array:
    """The sample after each call, with the model output 0.3 x + 0.1 sin(t / 100)."""
    sample = jnp.asarray(latents * np.float32(schedule.init_noise_sigma))
    offsets = (0.1 * np.sin(np.asarray(schedule.timesteps, np.float64) / 100)).astype(np.float32)

    def call(carry: Any, inputs: Any) -> Any:
        sample, state = carry
        row, offset, noise = inputs
        output = 0.3 * scheduler.scale_model_input(row, sample) + offset
        sample, state = scheduler.step(row, state, output, sample, noise)
        return (sample, state), sample

    state = scheduler.init_state(sample)
    _, trajectory = jax.lax.scan(call, (sample, state), (schedule.steps, offsets, noise))
    return trajectory
