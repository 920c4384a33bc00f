"""Which steps of a run are made with less: without the whole UNet, or without guidance."""

import dataclasses
import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import UsageError

CacheInterval = int | Sequence[int]
"""Every so many steps the whole UNet is run; or in these steps, counted from 0 in the run."""

GuidanceInterval = tuple[float, float]
"""Fractions of the schedule between which there is guidance."""

ALL_STEPS: GuidanceInterval = (0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class StepPlan:
    """What each call of the model does, by call of the run.

    Attributes:
        full: whether the whole UNet is run; otherwise its last layer alone, on the features that
            the last full call kept.
        steps: the step of the last full call, counted from 0 in the run, which says where windows
            lie: they stay with the features that are kept of them.
    """

    full: tuple[bool, ...]
    steps: tuple[int, ...]

    @classmethod
    def of(
        cls, interval: CacheInterval, steps: Sequence[int], kinds: Sequence[Hashable]
    ) -> "StepPlan":
        """Plans a run.

        As in DeepCache (https://arxiv.org/abs/2312.00858), steps are counted from where the run
        begins. Solvers that call the model twice for a step do so in one way. Besides the steps
        that are asked for, a call is full if the features that are kept are not its own: where
        guidance begins or ends, a ControlNet does, or the text changes.

        Args:
            interval: checked, see `check_cache_interval`.
            steps: of each call, counted from 0 in the run.
            kinds: what else differs between calls; features are kept within one kind.
        """
        whole: set[int] = set()
        kept: Hashable = None
        for step, kind in zip(steps, kinds, strict=True):
            asked = step in interval if isinstance(interval, Sequence) else step % interval == 0
            if not whole or asked or kind != kept:
                whole.add(step)
                kept = kind
        full: list[bool] = []
        sources: list[int] = []
        for step in steps:
            # Where only the second call has to be full, the first is too: a step that is repeated
            # would find the features of the second.
            full.append(step in whole)
            sources.append(int(step) if full[-1] else sources[-1])
        return cls(tuple(full), tuple(sources))


def guided_steps(interval: GuidanceInterval, steps: int) -> npt.NDArray[np.bool_]:
    """In which steps of a whole schedule there is guidance, bool `[steps]`.

    From step `int(low * steps)` to below `int(high * steps)`, which is the rule of diffusers'
    guiders (`start` and `stop`). Kynkäänniemi et al., 2024 (https://arxiv.org/abs/2404.07724), from
    whom the idea is, name noise levels in place of fractions.

    Args:
        interval: checked, see `check_guidance_interval`.
        steps: of the schedule.
    """
    low, high = (int(fraction * steps) for fraction in interval)
    places = np.arange(steps)
    return (low <= places) & (places < high)


def check_cache_interval(interval: CacheInterval, steps: float) -> None:
    """Checks in which steps the whole UNet is to run.

    Args:
        interval: what was asked for.
        steps: of the schedule.

    Raises:
        UsageError: it is neither a number of steps nor a list of steps that begins the run.
    """
    expected = "expected a whole number from 1, or a list of steps from 0, such as 0, 1, 2, 5, 8"
    if _is_integer(interval) and not isinstance(interval, Sequence):
        if interval < 1:
            raise UsageError(f"`cache_interval` is {interval}; {expected}.")
        return
    if isinstance(interval, str) or not isinstance(interval, Sequence):
        raise UsageError(f"`cache_interval` is {interval!r}; {expected}.")
    listed = list(interval)
    shown = str(listed) if len(str(listed)) <= 60 else f"{str(listed)[:60]}..."
    if not all(map(_is_integer, listed)):
        raise UsageError(f"`cache_interval` is {shown}; {expected}.")
    if 0 not in listed:
        raise UsageError(
            f"`cache_interval` is {shown}, without step 0; the first step runs the whole UNet, so "
            "that there is something to keep."
        )
    wrong = next((step for step in listed if not 0 <= step < steps), None)
    if wrong is not None:
        raise UsageError(
            f"`cache_interval` names step {wrong}; {steps} steps are counted from 0 to {steps - 1}."
        )
    twice = next((step for step in listed if listed.count(step) > 1), None)
    if twice is not None:
        raise UsageError(f"`cache_interval` names step {twice} twice; name it once.")


def check_guidance_interval(interval: GuidanceInterval) -> None:
    """Checks between which fractions there is to be guidance.

    Raises:
        UsageError: they are no two fractions in rising order.
    """
    expected = "expected two fractions of the steps from 0 to 1, such as 0 and 0.8"
    if isinstance(interval, str) or not isinstance(interval, Sequence) or len(interval) != 2:
        raise UsageError(f"`guidance_interval` is {interval!r}; {expected}.")
    for fraction in interval:
        if (
            not isinstance(fraction, int | float)
            or isinstance(fraction, bool)
            or not math.isfinite(fraction)
            or not 0 <= fraction <= 1
        ):
            raise UsageError(f"`guidance_interval` has {fraction!r}; {expected}.")
    low, high = interval
    if low >= high:
        raise UsageError(
            f"`guidance_interval` goes from {low:g} to {high:g}; the first has to be smaller. "
            "Without any guidance, `guidance_scale` is 1."
        )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
