"""`infer.py` from its flags alone gives the frames that the PyTorch reference gave."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from benchmarks.models.formula_checkpoint import write_checkpoint
from hotshot_jax.cli.convert.command import main as convert

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
CASE = "e2e_euler_ancestral"
# The parity benchmark runs all three through the pipeline; here each costs two processes.
CASES = (
    CASE,
    pytest.param("e2e_long_prompt", marks=pytest.mark.slow),
    pytest.param("e2e_image", marks=pytest.mark.slow),
)

_COMPONENTS = {
    "unet": "unet_tiny",
    "vae": "vae_tiny",
    "text_encoder": "clip_l_tiny",
    "text_encoder_2": "clip_g_tiny",
}


def _case(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "cases" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The checkpoint of the cases in the published layout, and converted."""
    folder = tmp_path_factory.mktemp("golden")
    models = GOLDEN / "models"
    scheduler = _case(CASE)["scheduler"]
    write_checkpoint(
        folder / "published",
        {
            component: (models / f"{name}.config.json", models / f"{name}.shapes.json", 0)
            for component, name in _COMPONENTS.items()
        },
        {name: GOLDEN / "e2e" / name for name in ("tokenizer", "tokenizer_2")},
        (scheduler["class"], scheduler["config"]),
    )
    assert convert([str(folder / "published"), str(folder / "converted")]) == 0
    return {name: folder / name for name in ("published", "converted")}


def _infer(
    checkpoint: Path, case: dict[str, Any], output: Path, cache: Path
) -> tuple[np.ndarray, dict[str, Any]]:
    """Runs the command in a process of its own; gives its frames and its report."""
    arguments = case["arguments"]
    width, height = arguments["original_size"]
    target_width, target_height = arguments["target_size"]
    # A folder of PNGs, or one PNG: what a GIF's palette would hide is compared too.
    still = arguments["video_length"] == 1
    path = output / "still.png" if still else output / "frames"
    flags: dict[str, Any] = {
        "pretrained_path": checkpoint,
        "output": path if still else f"{path}/",
        "prompt": arguments["prompt"],
        "negative_prompt": arguments["negative_prompt"],
        "seed": arguments["seed"],
        "width": arguments["width"],
        "height": arguments["height"],
        "og_width": width,
        "og_height": height,
        "target_width": target_width,
        "target_height": target_height,
        "steps": arguments["num_inference_steps"],
        "video_length": arguments["video_length"],
        "guidance_scale": arguments["guidance_scale"],
        "scheduler": case["scheduler"]["class"],
        "precision": "f32",
        "compilation_cache": cache,
    }
    command = [sys.executable, "infer.py", "--json"]
    for name, value in flags.items():
        command += [f"--{name}", str(value)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, check=False)
    assert run.returncode == 0, run.stderr.decode()
    files = [path] if still else sorted(path.glob("*.png"))
    frames = np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])
    return frames, json.loads(run.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", CASES)
def test_frames_equal_the_reference_in_both_forms_and_the_second_process_compiles_nothing(
    name: str, checkpoints: dict[str, Path], compilation_cache: Path, tmp_path: Path
) -> None:
    case = _case(name)
    expected = load_file(GOLDEN / "cases" / f"{name}.safetensors")["frames_uint8"]
    reports = []
    for form, checkpoint in checkpoints.items():
        frames, report = _infer(checkpoint, case, tmp_path / form, compilation_cache)
        assert frames.shape == expected.shape
        assert np.abs(frames.astype(int) - expected).max() <= 1
        reports.append(report)
    assert reports[1]["compiled"] == 0
