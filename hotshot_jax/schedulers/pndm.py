"""Pseudo numerical methods (Liu et al. 2022, arXiv:2202.09778).

The transfer of equation 9 moves x from ā to ā' along a noise prediction e,

    φ(x, e) = sqrt(ā'/ā) x - (ā' - ā) e / (ā sqrt(1 - ā') + sqrt(ā (1 - ā) ā')),

and e is a combination of model outputs. Linear multistep (PLMS) combines the newest with up to
three before it after Adams and Bashforth. Its start-up either repeats the first step (the second
call averages both outputs and steps again from the first sample), so n steps are n + 1 calls, or
takes the Runge-Kutta steps of the paper for the first three intervals, four calls each. No noise is
drawn.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.choices import SPACINGS
from hotshot_jax.errors import UsageError
from hotshot_jax.schedulers.base import Column, Schedule, Scheduler, float32, zeros_like_sample
from hotshot_jax.schedulers.configuration import option
from hotshot_jax.schedulers.numbers import evenly_spaced

ADAMS_BASHFORTH = np.array(
    [
        [1, 0, 0, 0],
        [3 / 2, -1 / 2, 0, 0],
        [23 / 12, -16 / 12, 5 / 12, 0],
        [55 / 24, -59 / 24, 37 / 24, -9 / 24],
    ]
)
RUNGE_KUTTA = np.array([1 / 6, 1 / 3, 1 / 3, 1 / 6])
RUNGE_KUTTA_INTERVALS = 3


class PNDMRow(NamedTuple):
    """One call, with base = the saved sample if from_saved, else x.

    e = newest · m + Σ_k history[k] · outputs[k] + average · sum;   x' = sample · base + output · e.
    """

    newest: Column
    history: Column
    average: Column
    sum_kept: Column
    sum_added: Column
    push: Column
    save: Column
    from_saved: Column
    sample: Column
    output: Column


class PNDMState(NamedTuple):
    """Solver history; every array is float32 and has the sample's shape.

    Attributes:
        outputs: the three model outputs before this one, newest first.
        saved: the sample from which start-up calls step.
        sum: running sum of a Runge-Kutta step.
    """

    outputs: tuple[jax.Array, jax.Array, jax.Array]
    saved: jax.Array
    sum: jax.Array


class _Plan(NamedTuple):
    """What the calls do, before ā is looked up; int64 or float64 [calls]."""

    timesteps: np.ndarray
    source: np.ndarray
    target: np.ndarray
    combination: dict[str, np.ndarray]
    step_of_call: np.ndarray


@dataclasses.dataclass(frozen=True)
class PNDMScheduler(Scheduler):
    """PNDM; see the module docstring.

    Attributes:
        skip_prk_steps: start without Runge-Kutta steps, as every SDXL checkpoint does.
        set_alpha_to_one: the last step ends at ā' = 1, otherwise at that of timestep 0.
    """

    prediction_type: str = option("epsilon", choices=("epsilon", "v_prediction"))
    timestep_spacing: str = option("leading", choices=SPACINGS)
    skip_prk_steps: bool = option(False)
    set_alpha_to_one: bool = option(False)

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are int64."""
        self._check_steps(num_inference_steps, first_step)
        rising = evenly_spaced(
            self.timestep_spacing,
            num_inference_steps,
            self.num_train_timesteps,
            self.steps_offset,
        )[::-1]
        # A run that starts later has a start-up of its own.
        rising = rising.round().astype(np.int64)[: num_inference_steps - first_step]
        stride = self.num_train_timesteps // num_inference_steps
        plan = (_multistep_plan if self.skip_prk_steps else _runge_kutta_plan)(rising, stride)

        alphas = self._alphas_at(plan.source)
        self._require_signal(alphas)
        final = 1.0 if self.set_alpha_to_one else self._alphas_at(np.zeros(1, np.int64))[0]
        alphas_after = np.where(plan.target >= 0, self._alphas_at(plan.target.clip(0)), final)
        of_sample = np.sqrt(alphas_after / alphas)
        of_noise = -(alphas_after - alphas) / (
            alphas * np.sqrt(1 - alphas_after) + np.sqrt(alphas * (1 - alphas) * alphas_after)
        )
        if self.prediction_type == "v_prediction":
            # e = sqrt(ā) v + sqrt(1 - ā) x, with v combined like e.
            of_sample = of_sample + of_noise * np.sqrt(1 - alphas)
            of_noise = of_noise * np.sqrt(alphas)
        rows = PNDMRow(**plan.combination, sample=of_sample, output=of_noise)
        schedule = self._make_schedule(plan.timesteps, rows, False)
        return dataclasses.replace(
            schedule, step_of_call=plan.step_of_call + first_step, calls_before=first_step
        )

    def init_state(self, sample: ArrayLike) -> PNDMState:
        """No outputs yet."""
        first, second, third, saved, total = (zeros_like_sample(sample) for _ in range(5))
        return PNDMState((first, second, third), saved, total)

    def step(
        self,
        row: PNDMRow,
        state: PNDMState,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, PNDMState]:
        """One call's update; see `Scheduler.step`."""
        x, output = float32(sample), float32(model_output)
        combined = row.newest * output + row.average * state.sum
        for k, before in enumerate(state.outputs):
            combined += row.history[k] * before
        base = jnp.where(row.from_saved != 0, state.saved, x)
        following = row.sample * base + row.output * combined
        shifted = (output, *state.outputs[:2])
        first, second, third = (
            jnp.where(row.push != 0, new, old)
            for new, old in zip(shifted, state.outputs, strict=True)
        )
        new_state = PNDMState(
            outputs=(first, second, third),
            saved=jnp.where(row.save != 0, x, state.saved),
            sum=row.sum_kept * state.sum + row.sum_added * output,
        )
        return following, new_state


def _multistep_plan(rising: np.ndarray, stride: int) -> _Plan:
    """PLMS with the second call repeating the first interval."""
    timesteps = np.concatenate([rising[:-1], rising[-2:-1], rising[-1:]])[::-1]
    calls = len(timesteps)
    index = np.arange(calls)
    weights = ADAMS_BASHFORTH[np.where(index < 2, 0, index - 1).clip(max=3)]
    if calls > 1:
        weights[1] = [1 / 2, 1 / 2, 0, 0]
    repeated = index == 1
    nothing = np.zeros(calls)
    combination = {
        "newest": weights[:, 0],
        "history": weights[:, 1:],
        "average": nothing,
        "sum_kept": nothing,
        "sum_added": nothing,
        "push": ~repeated,
        "save": index == 0,
        "from_saved": repeated,
    }
    source = np.where(repeated, timesteps + stride, timesteps)
    target = np.where(repeated, timesteps, timesteps - stride)
    return _Plan(timesteps.copy(), source, target, combination, (index - 1).clip(min=0))


def _runge_kutta_plan(rising: np.ndarray, stride: int) -> _Plan:
    """Three Runge-Kutta intervals of four calls, then PLMS of fourth order."""
    if len(rising) <= RUNGE_KUTTA_INTERVALS:
        raise UsageError(
            f"num_inference_steps is {len(rising)}; PNDMScheduler with skip_prk_steps=False takes "
            f"at least {RUNGE_KUTTA_INTERVALS + 1} steps."
        )
    falling = rising[::-1]
    starts, ends = falling[:RUNGE_KUTTA_INTERVALS], falling[1 : RUNGE_KUTTA_INTERVALS + 1]
    half = stride // 2
    started = np.stack([starts, ends + half, ends + half, ends], axis=1)
    multistep = falling[RUNGE_KUTTA_INTERVALS:]
    timesteps = np.concatenate([started.ravel(), multistep])

    calls, early = len(timesteps), started.size
    stage = np.where(np.arange(calls) < early, np.arange(calls) % 4, -1)
    descent = np.select([stage < 0, stage % 2 == 0], [stride, half], 0)
    source = np.concatenate([np.repeat(starts, 4), multistep])
    newest = np.select([stage == 3, stage >= 0], [RUNGE_KUTTA[3], 1.0], ADAMS_BASHFORTH[3, 0])
    combination = {
        "newest": newest,
        "history": np.where(stage[:, None] < 0, ADAMS_BASHFORTH[3, 1:], 0.0),
        "average": stage == 3,
        "sum_kept": (stage == 1) | (stage == 2),
        "sum_added": np.where((stage >= 0) & (stage < 3), RUNGE_KUTTA[stage.clip(0)], 0.0),
        "push": stage <= 0,
        "save": stage == 0,
        "from_saved": stage > 0,
    }
    interval = np.arange(len(rising))
    step_of_call = np.repeat(interval, np.where(interval < RUNGE_KUTTA_INTERVALS, 4, 1))
    return _Plan(timesteps, source, timesteps - descent, combination, step_of_call)
