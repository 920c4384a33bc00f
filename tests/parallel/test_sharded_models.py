"""On a mesh, the models give what they give on one device, without gathering activations."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).with_name("sharded_models.py")
ROOT = PROGRAM.parents[2]

ONE_AXIS = [f"{axis}={size}" for axis in ("data", "fsdp", "frames", "tensor") for size in (2, 4, 8)]
MIXED = [
    "data=2,frames=4",
    "frames=4,tensor=2",
    "data=2,fsdp=2,frames=2",
    "fsdp=2,frames=2,tensor=2",
]
# One of each kind by default; the others take as long again.
FAST = [
    "data=2",
    "fsdp=4",
    "frames=2",
    "frames=4",
    "frames=8",
    "tensor=2",
    "data=2,frames=4",
    "fsdp=2,frames=2,tensor=2",
]
SLOW = [mesh for mesh in ONE_AXIS + MIXED if mesh not in FAST]
MESHES = FAST + [pytest.param(mesh, marks=pytest.mark.slow) for mesh in SLOW]
GRADIENTS = ["fsdp=2,frames=2,tensor=2", "data=2,frames=4"]

# float32 sums of a few thousand terms in another order; observed are 3e-7 to 2e-6.
TOLERANCE = 1e-5


def run(arguments: list[str]) -> dict[str, Any]:
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "8",
        # Compiling is all of the time here, and no result depends on it.
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": str(ROOT),
    }
    finished = subprocess.run(
        [sys.executable, str(PROGRAM), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout)


@functools.cache
def forward_results(*, slow: bool) -> dict[str, Any]:
    meshes = [f"{mesh}:unet+decode" for mesh in (SLOW if slow else FAST)]
    return run(meshes if slow else [*meshes, "data=2,frames=2:decode_images"])


@functools.cache
def gradient_results() -> dict[str, Any]:
    return run([f"{mesh}:gradients" for mesh in GRADIENTS])


@pytest.mark.parametrize("mesh", MESHES)
def test_unet_equals_one_device(mesh: str) -> None:
    assert forward_results(slow=mesh in SLOW)[mesh]["unet"]["error"] <= TOLERANCE


@pytest.mark.parametrize("mesh", MESHES)
def test_decoding_equals_one_device(mesh: str) -> None:
    assert forward_results(slow=mesh in SLOW)[mesh]["decode"]["error"] <= TOLERANCE


def test_images_are_decoded_on_all_devices_without_communication() -> None:
    result = forward_results(slow=False)["data=2,frames=2"]["decode_images"]
    assert result["error"] <= TOLERANCE
    assert result["collectives"] == {}


@pytest.mark.parametrize("mesh", ["frames=2", "frames=4", "frames=8", "data=2,frames=4"])
def test_frames_are_exchanged_for_pixels_and_never_gathered(mesh: str) -> None:
    collectives = forward_results(slow=False)[mesh]["unet"]["collectives"]
    # Group norms that pool over frames reduce; two exchanges for each of the 6 temporal layers.
    assert set(collectives) == {"all-reduce", "all-to-all"}
    assert collectives["all-to-all"] == 12


@pytest.mark.parametrize(
    "axis", ["data=2", *(pytest.param(f"data={n}", marks=pytest.mark.slow) for n in (4, 8))]
)
def test_samples_need_no_communication(axis: str) -> None:
    assert forward_results(slow=axis in SLOW)[axis]["unet"]["collectives"] == {}


@pytest.mark.parametrize("mesh", ["frames=8", "data=2,frames=4"])
def test_frames_are_decoded_without_communication(mesh: str) -> None:
    assert forward_results(slow=False)[mesh]["decode"]["collectives"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", GRADIENTS)
def test_gradients_equal_one_device(mesh: str) -> None:
    assert gradient_results()[mesh]["gradients"]["error"] <= TOLERANCE
