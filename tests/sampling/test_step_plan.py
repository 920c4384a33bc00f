"""Which steps run the whole UNet, and which are guided."""

from typing import Any

import numpy as np
import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.step_plan import (
    StepPlan,
    check_cache_interval,
    check_guidance_interval,
    guided_steps,
)
from hotshot_jax.schedulers import make_scheduler


def full(interval: Any, steps: Any, kinds: Any = None) -> list[int]:
    """Numbers of the full calls."""
    plan = StepPlan.of(interval, steps, kinds or [None] * len(steps))
    return [call for call, each in enumerate(plan.full) if each]


def test_an_interval_of_one_runs_everything() -> None:
    plan = StepPlan.of(1, range(5), [None] * 5)
    assert plan == StepPlan((True,) * 5, (0, 1, 2, 3, 4))


def test_steps_between_stand_on_the_last_full_one() -> None:
    assert StepPlan.of(3, range(5), [None] * 5).steps == (0, 0, 0, 3, 3)
    assert StepPlan.of([0, 1, 4], range(6), [None] * 6).steps == (0, 1, 1, 1, 4, 4)
    assert full(100, range(5)) == [0]
    assert full((0,), range(5)) == [0]


def test_thirty_steps_have_ten_full_ones_of_three() -> None:
    assert len(full(3, range(30))) == 10


def test_both_calls_of_a_step_are_alike() -> None:
    steps = make_scheduler("heun", {}).schedule(5).step_of_call
    assert list(steps) == [0, 0, 1, 1, 2, 2, 3, 3, 4]
    assert full(2, steps) == [0, 1, 4, 5, 8]
    # Also where something else ends between them.
    assert full(100, steps, "aaaaabbbb") == [0, 1, 4, 5]


def test_another_kind_begins_anew() -> None:
    assert full(3, range(7), "aabbbba") == [0, 2, 3, 6]
    assert full(5, range(6), "ababab") == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("steps", [1, 4, 30, 50])
@pytest.mark.parametrize("interval", [(0.0, 1.0), (0.0, 0.8), (0.2, 0.8), (0.29, 0.57), (0.5, 0.6)])
def test_guided_steps_are_those_of_diffusers(interval: tuple[float, float], steps: int) -> None:
    from diffusers.guiders import ClassifierFreeGuidance

    guider = ClassifierFreeGuidance(guidance_scale=7.5, start=interval[0], stop=interval[1])
    expected = []
    for step in range(steps):
        guider.set_state(step=step, num_inference_steps=steps, timestep=None)
        expected.append(guider.num_conditions == 2)
    np.testing.assert_array_equal(guided_steps(interval, steps), expected)


@pytest.mark.parametrize("interval", [1, 3, 30, 1000, (0,), [0, 1, 2, 5, 8], [0, 29], [0, 5, 2]])
def test_intervals_that_are_taken(interval: Any) -> None:
    check_cache_interval(interval, 30)


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        (0, "is 0; expected a whole number from 1"),
        (-3, "is -3;"),
        (float("nan"), "is nan;"),
        (2.0, "is 2.0;"),
        (True, "is True;"),
        ("3", "is '3';"),
        (None, "is None;"),
        ([], "without step 0"),
        ([1, 2], "without step 0"),
        ([0, 30], "names step 30; 30 steps are counted from 0 to 29"),
        ([0, -1], "names step -1;"),
        ([0, 3, 3], "names step 3 twice"),
        ([0, 1.5], "expected a whole number from 1, or a list"),
        ([0, True], "expected a whole number from 1, or a list"),
    ],
)
def test_intervals_that_are_refused(interval: Any, message: str) -> None:
    with pytest.raises(UsageError, match="`cache_interval`") as error:
        check_cache_interval(interval, 30)
    assert message in str(error.value)


def test_intervals_of_guidance_that_are_taken() -> None:
    for interval in ((0.0, 1.0), (0, 1), [0.2, 0.8]):
        check_guidance_interval(interval)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("interval", "message"),
    [
        ((0.8, 0.2), "goes from 0.8 to 0.2; the first has to be smaller"),
        ((0.5, 0.5), "the first has to be smaller"),
        ((-0.1, 1.0), "has -0.1;"),
        ((0.0, 1.1), "has 1.1;"),
        ((float("nan"), 1.0), "has nan;"),
        ((0.0, float("inf")), "has inf;"),
        ((0.0, "1"), "has '1';"),
        ((False, 1.0), "has False;"),
        ((0.0,), "expected two fractions"),
        (0.8, "is 0.8; expected two fractions"),
        ("0:1", "expected two fractions"),
        (None, "is None;"),
    ],
)
def test_intervals_of_guidance_that_are_refused(interval: Any, message: str) -> None:
    with pytest.raises(UsageError, match="`guidance_interval`") as error:
        check_guidance_interval(interval)
    assert message in str(error.value)
