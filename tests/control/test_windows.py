"""The scale of each ControlNet in each step, and what is refused."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from hotshot_jax.conditioning.control.windows import ControlWindow, control_windows, scale_table
from hotshot_jax.errors import UsageError

CASES = Path(__file__).parents[1] / "golden" / "cases"


@pytest.mark.parametrize("case", ["controlnet_pipeline", "controlnet_pipeline_guess"])
def test_equal_to_the_reference(case: str) -> None:
    arguments = json.loads((CASES / f"{case}.json").read_text())["arguments"]
    window = ControlWindow(
        arguments["controlnet_conditioning_scale"],
        arguments.get("control_guidance_start", 0.0),
        arguments.get("control_guidance_end", 1.0),
    )
    expected = load_file(CASES / f"{case}.safetensors")["cond_scale_per_step"]
    table = scale_table([window], arguments["num_inference_steps"])
    np.testing.assert_array_equal(table[:, 0], expected)


def test_each_controlnet_has_its_own_column() -> None:
    table = scale_table([ControlWindow(0.5, 0.0, 0.5), ControlWindow(2.0, 0.25, 1.0)], 4)
    assert table.dtype == np.float32
    np.testing.assert_array_equal(table, [[0.5, 0], [0.5, 2], [0, 2], [0, 2]])


def test_a_step_counts_only_if_it_lies_wholly_inside() -> None:
    table = scale_table([ControlWindow(1.0, 0.3, 0.7)], 5)
    np.testing.assert_array_equal(table[:, 0], [0, 0, 1, 0, 0])


@pytest.mark.parametrize(("start", "end"), [(0.0, 0.5), (0.3, 0.7), (0.0, 1.0), (0.1, 0.95)])
@pytest.mark.parametrize("calls", [4, 7, 59])
def test_fractions_are_of_the_whole_schedule_whatever_is_run(
    start: float, end: float, calls: int
) -> None:
    # diffusers 0.42, StableDiffusionXLControlNetPipeline, 7.1; the timesteps are cut in 8.1.
    keep = [1.0 - float(i / calls < start or (i + 1) / calls > end) for i in range(calls)]
    window = ControlWindow(1.0, start, end)
    for run in (range(calls), range(calls // 2), range(calls // 3, calls)):
        table = scale_table([window], calls, run)
        np.testing.assert_array_equal(table[:, 0], np.float32(keep)[run.start : run.stop])


def test_a_window_without_a_step_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        table = scale_table([ControlWindow(1.0, 0.1, 0.2)], 4)
    assert not table.any()
    assert "ControlNet 1 has no effect" in caplog.text
    caplog.clear()
    scale_table([ControlWindow(0.0, 0.1, 0.2)], 4)
    assert not caplog.text
    scale_table([ControlWindow(1.0, 0.5, 1.0)], 4, range(2))
    assert "of the 2 calls of the model that are made, none lies between 0.5 and 1" in caplog.text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"scale": -0.1}, "`controlnet_conditioning_scale` is -0.1"),
        ({"scale": float("nan")}, "`controlnet_conditioning_scale` is nan"),
        ({"scale": float("inf")}, "`controlnet_conditioning_scale` is inf"),
        ({"start": -0.1}, "`control_guidance_start` is -0.1"),
        ({"end": 1.1}, "`control_guidance_end` is 1.1"),
        ({"end": float("nan")}, "`control_guidance_end` is nan"),
        ({"start": 0.5, "end": 0.5}, "the start must be smaller"),
        ({"start": 0.8, "end": 0.2}, "the start must be smaller"),
    ],
)
def test_bad_values_are_refused(values: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ControlWindow(**values)


def test_flags_are_paired_in_order() -> None:
    assert control_windows(2, scales=[0.1, 0.2], ends=[0.5, 1.0]) == (
        ControlWindow(0.1, 0.0, 0.5),
        ControlWindow(0.2, 0.0, 1.0),
    )
    assert control_windows(1) == (ControlWindow(0.7, 0.0, 1.0),)


def test_two_controlnets_and_one_scale_are_refused() -> None:
    with pytest.raises(
        UsageError, match="`controlnet_conditioning_scale` has 1 value for 2 ControlNets"
    ):
        control_windows(2, scales=[0.7])
    with pytest.raises(UsageError, match="`control_guidance_end` has 2 values for 1 ControlNet;"):
        control_windows(1, ends=[0.5, 1.0])
