"""The stored trajectories of diffusers 0.21.4, and the differences to current versions."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from diffusers_oracle import BOUND, NOISES, SDXL, relative_error, run

from benchmarks.parity_cases.pipelines.diffusers_differences import (
    KNOWN_DIFFERENCES,
    StridedDDPM,
    known_difference,
)
from hotshot_jax.schedulers import CLASSES, make_scheduler

DESCRIPTION = Path(__file__).parents[1] / "golden" / "cases" / "schedulers.json"
CASES = json.loads(DESCRIPTION.read_text())["schedulers"]
DIFFERING = {"dpm.n30", "dpm.n7", "dpm_karras.n30", "dpm_karras.n7", "unipc.n30", "unipc.n7"}


def test_the_differing_cases_are_known():
    found = {
        name for name, case in CASES.items() if known_difference(case["class"], case["config"])
    }
    assert found == DIFFERING


@pytest.mark.parametrize("name", CASES)
def test_stored_trajectory(name, golden_schedulers):
    tensors = golden_schedulers
    case = CASES[name]
    difference = known_difference(case["class"], case["config"])
    steps, timesteps = case["num_inference_steps"], tensors[f"{name}.timesteps"]
    if difference is None:
        scheduler = make_scheduler(case["class"], case["config"])
        scheduler = dataclasses.replace(scheduler, **case["step_kwargs"])
        schedule = scheduler.schedule(steps)
        if f"{name}.sigmas" in tensors:
            # One float32 rounding, of PyTorch's square root.
            np.testing.assert_allclose(schedule.sigmas, tensors[f"{name}.sigmas"], rtol=2.5e-7)
    else:
        scheduler = difference.scheduler(CLASSES[case["class"]], case["config"])
        schedule = difference.schedule(scheduler, steps, timesteps)
    assert schedule.calls == case["model_calls"]
    # Karras timesteps were float64 in 0.21.4.
    np.testing.assert_allclose(schedule.timesteps, timesteps, rtol=1e-6)
    assert schedule.init_noise_sigma == pytest.approx(case["init_noise_sigma"], rel=2.5e-7)
    assert np.nonzero(schedule.draws_noise)[0].tolist() == case.get("noise_drawn_in_calls", [])
    noises = tensors.get(f"{name}.noise", NOISES)
    trajectory = run(scheduler, schedule, tensors["latents"], noises)
    assert relative_error(trajectory, tensors[f"{name}.trajectory"]) <= BOUND


@pytest.mark.parametrize("name", sorted(DIFFERING))
def test_a_difference_is_one(name, golden_schedulers):
    case, expected = CASES[name], golden_schedulers[f"{name}.trajectory"]
    scheduler = make_scheduler(case["class"], case["config"])
    current = run(
        scheduler, scheduler.schedule(case["num_inference_steps"]), golden_schedulers["latents"]
    )
    assert relative_error(current, expected) > 10 * BOUND


def test_ddpm_takes_whole_strides_off_leading_spacing():
    leading = known_difference("DDPMScheduler", SDXL)
    assert leading is None
    for spacing in ("linspace", "trailing"):
        config = SDXL | {"timestep_spacing": spacing}
        difference = known_difference("DDPMScheduler", config)
        scheduler = difference.scheduler(CLASSES["DDPMScheduler"], config)
        assert isinstance(scheduler, StridedDDPM)
        # For leading spacing both are the same.
        plain = CLASSES["DDPMScheduler"].from_config(SDXL)
        strided = StridedDDPM.from_config(SDXL)
        np.testing.assert_array_equal(
            plain.schedule(30).steps.sample, strided.schedule(30).steps.sample
        )


def test_unipc_with_karras_levels_runs_through_given_timesteps():
    config = SDXL | {"use_karras_sigmas": True}
    difference = known_difference("UniPCMultistepScheduler", config)
    assert difference is KNOWN_DIFFERENCES["unipc_karras"]
    scheduler = difference.scheduler(CLASSES["UniPCMultistepScheduler"], config)
    schedule = difference.schedule(scheduler, 5, [999, 500, 20, 3])
    assert schedule.timesteps.tolist() == [999, 500, 20, 3]
    assert schedule.sigmas[-1] > 0


def test_strided_ddpm_looks_a_whole_stride_down():
    scheduler = CLASSES["DDPMScheduler"].from_config(SDXL | {"timestep_spacing": "linspace"})
    strided = StridedDDPM.from_config(SDXL | {"timestep_spacing": "linspace"})
    alphas = scheduler.noise_schedule.alphas_cumprod
    # 999, 500 (499.5 is rounded to even), 0: one stride of 333 below 999 is 666.
    kept = {500: scheduler, 666: strided}
    for target, one in kept.items():
        expected = np.sqrt(alphas[target]) * (1 - alphas[999] / alphas[target]) / (1 - alphas[999])
        assert one.schedule(3).steps.denoised[0] == pytest.approx(expected, rel=1e-5)
