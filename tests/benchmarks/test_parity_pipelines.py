"""Pipeline cases of other forms than the stored ones, against diffusers itself."""

import json
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
from image_goldens import GOLDEN, write_case
from safetensors.numpy import load_file, save_file

from benchmarks.parity import main
from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case
from hotshot_jax.pipelines import HotshotXLPipeline

# Of NumPy 2, about diffusers' use of torch tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

SDXL = {
    "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
    "timestep_spacing": "leading", "steps_offset": 1,
}  # fmt: skip


def verdicts(golden: Path, capsys: Any) -> dict[str, str]:
    main(["--golden", str(golden), "--json"])
    output = capsys.readouterr().out
    print(output)
    report = json.loads(output.splitlines()[-1])
    return {row["what"]: row["verdict"] for row in report["results"]}


def test_several_calls_of_a_solver_of_two_without_guidance(tmp_path: Path, capsys: Any) -> None:
    heun = ("HeunDiscreteScheduler", SDXL)
    golden = write_case(tmp_path, "two calls", heun, steps=3, detailed=(1, 4))
    found = verdicts(golden, capsys)
    assert set(found.values()) == {"ok"}
    assert {"step1.unet_input", "step4.unet_output", "latents_per_step"} <= set(found)

    # The same run recorded as the reference's callback sees it: after every second call.
    file = golden / "cases" / "two calls.safetensors"
    tensors = load_file(file)
    tensors["latents_per_step"] = tensors["latents_per_step"][[1, 3, 4]]
    save_file(tensors, file)
    assert set(verdicts(golden, capsys).values()) == {"ok"}

    tensors["step4.unet_output"][0, 0, 0, 0, 0] += 1e-3 * np.abs(tensors["step4.unet_output"]).max()
    tensors["latents_per_step"] = np.roll(tensors["latents_per_step"], 1, axis=0)
    save_file(tensors, file)
    found = verdicts(golden, capsys)
    assert found["step4.unet_output"] == found["latents_per_step"] == "FAILED"


def test_versions_of_diffusers_that_differ_are_told(tmp_path: Path, capsys: Any) -> None:
    """What 0.21.4 made of Karras levels: whole timesteps, which current versions can be given."""
    name = "dpm_karras.n7"
    entry = json.loads((GOLDEN / "cases" / "schedulers.json").read_text())["schedulers"][name]
    timesteps = load_file(GOLDEN / "cases" / "schedulers.safetensors")[f"{name}.timesteps"]
    then = diffusers.DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        final_sigmas_type="sigma_min",
    )  # fmt: skip
    stated = (entry["class"], entry["config"] | {"lambda_min_clipped": None})
    golden = write_case(
        tmp_path, "karras", stated, steps=7, guidance_scale=4.0, then=then, timesteps=timesteps
    )
    found = verdicts(golden, capsys)
    assert found["scheduler"] == "differs by intent"
    assert found["latents_per_step"] == "ok"
    assert set(found.values()) == {"ok", "differs by intent"}


@pytest.mark.slow
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_a_controlnet_in_several_calls(tmp_path: Path, capsys: Any, guidance_scale: float) -> None:
    euler = ("EulerDiscreteScheduler", SDXL)
    golden = write_case(
        tmp_path, "control", euler, steps=4, guidance_scale=guidance_scale, detailed=(1, 3),
        control=0.6,
    )  # fmt: skip
    found = verdicts(golden, capsys)
    assert set(found.values()) == {"ok"}
    assert {"step1.mid_block_additional_residual", "step3.unet_output"} <= set(found)


@pytest.mark.slow
def test_a_solver_that_warms_up_is_recorded_from_its_second_call(
    tmp_path: Path, capsys: Any
) -> None:
    pndm = ("PNDMScheduler", SDXL | {"skip_prk_steps": True})
    late = slice(1, None)
    golden = write_case(tmp_path, "warm", pndm, steps=4, guidance_scale=3.0, recorded=late)
    assert set(verdicts(golden, capsys).values()) == {"ok"}


def test_brackets_are_text_to_the_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    (case,) = read_cases(GOLDEN, ["e2e_image"])
    given: dict[str, Any] = {}

    def called(pipeline: HotshotXLPipeline, **arguments: Any) -> Any:
        given.update(arguments)
        raise InterruptedError

    monkeypatch.setattr(HotshotXLPipeline, "__call__", called)
    with pytest.raises(InterruptedError):
        list(run_case(case))
    assert given["prompt_weights"] is False
    assert given["prompt"] == case.arguments["prompt"]
