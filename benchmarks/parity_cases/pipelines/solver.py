"""The scheduler of a pipeline case, with the run that it made when the case was stored."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks.parity_cases.case import EXACT, SINGLE_MODULE, Case, Result, Verdict, compare
from benchmarks.parity_cases.pipelines.diffusers_differences import Difference, known_difference
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.schedulers.base import Schedule, Scheduler
from hotshot_jax.schedulers.heun import HeunDiscreteScheduler


@dataclasses.dataclass(frozen=True)
class Solver:
    """A scheduler and its run.

    Attributes:
        scheduler: computes as the case's did.
        schedule: its run.
        current: the run of the same configuration without regard to when the case was made.
        difference: what the reference's version of diffusers did otherwise, if anything.
    """

    scheduler: Scheduler
    schedule: Schedule
    current: Schedule
    difference: Difference | None

    def recorded(self, count: int, calls: int) -> list[int] | None:
        """Which calls the entries of `latents_per_step` belong to.

        Args:
            count: number of entries.
            calls: how often the model was called.

        Returns:
            One call for each entry: all of them, or those after which the reference calls back,
            which for a solver of two calls is every second; None if `count` is neither.
        """
        if count == calls:
            return list(range(calls))
        order = 2 if isinstance(self.scheduler, HeunDiscreteScheduler) else 1
        steps = int(self.schedule.step_of_call[-1]) + 1
        warm_up = max(self.schedule.calls - steps * order, 0)
        reported = [
            call
            for call in range(calls)
            if call == calls - 1 or (call + 1 > warm_up and (call + 1) % order == 0)
        ]
        return reported if len(reported) == count else None


def read_solver(case: Case) -> Solver:
    """The case's scheduler, with the run that its version of diffusers made."""
    entry, steps = case.description["scheduler"], case.arguments["num_inference_steps"]
    first_step = case.arguments.get("first_step", 0)
    current = make_scheduler(entry["class"], entry["config"])
    difference = known_difference(entry["class"], entry["config"])
    if difference is None:
        schedule = current.schedule(steps, first_step)
        return Solver(current, schedule, schedule, None)
    then = difference.scheduler(type(current), entry["config"])
    schedule = difference.schedule(then, steps, case["timesteps"], first_step)
    if difference.given_timesteps:
        then = _with_run(then, schedule)
    return Solver(then, schedule, current.schedule(steps, first_step), difference)


def check_schedule(case: Case, solver: Solver) -> Iterator[Result]:
    """Compares timesteps and noise levels, and tells where diffusers' versions differ."""
    difference = solver.difference
    if difference is not None:
        yield Result("scheduler", Verdict.DIFFERS, note=difference.sentence)
    current, expected = solver.current, case["timesteps"]
    bound = EXACT if np.issubdtype(expected.dtype, np.integer) else SINGLE_MODULE
    found = [compare("timesteps", current.timesteps, expected, bound)]
    if "sigmas" in case:
        sigmas = np.zeros(0) if current.sigmas is None else current.sigmas
        found.append(compare("sigmas", sigmas, case["sigmas"], SINGLE_MODULE))
    if "init_noise_sigma" in case.arguments:
        sigma = np.asarray(case.arguments["init_noise_sigma"])
        found.append(compare("init_noise_sigma", current.init_noise_sigma, sigma, SINGLE_MODULE))
    for result in found:
        if difference is not None and result.verdict.fails:
            result = dataclasses.replace(result, verdict=Verdict.DIFFERS, bound=None)
        yield result


def _with_run(scheduler: Scheduler, run: Schedule) -> Scheduler:
    """The scheduler, of which every run is the given one."""

    def schedule(self: Any, num_inference_steps: int, first_step: int = 0) -> Schedule:
        return run

    cls = type(scheduler)
    given = {each.name: getattr(scheduler, each.name) for each in dataclasses.fields(scheduler)}
    return type(cls.__name__, (cls,), {"schedule": schedule})(**given)
