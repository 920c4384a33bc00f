"""On a mesh, the models give what they give on one device, without gathering activations."""

import functools
from typing import Any

import pytest

from tests.parallel.simulated_devices import MIXED, ONE_AXIS, run

PROGRAM = "sharded_models.py"

# Each costs seconds of compiling; these have all axes between them.
FAST = ["data=2,frames=4", "fsdp=2,frames=2,tensor=2"]
SLOW = [mesh for mesh in ONE_AXIS + MIXED if mesh not in FAST]


def marked(*meshes: str) -> list[Any]:
    """Those that are slow, marked so."""
    return [pytest.param(mesh, marks=pytest.mark.slow) if mesh in SLOW else mesh for mesh in meshes]


GRADIENTS = ["fsdp=2,frames=2,tensor=2", "data=2,frames=4"]

# float32 sums of a few thousand terms in another order; observed are 3e-7 to 2e-6.
TOLERANCE = 1e-5


@functools.cache
def _forward_results(*, slow: bool) -> dict[str, Any]:
    meshes = [f"{mesh}:unet+decode" for mesh in (SLOW if slow else FAST)]
    return run(PROGRAM, meshes if slow else [*meshes, "data=2,frames=2:decode_images"])


def forward_results(mesh: str) -> dict[str, Any]:
    return _forward_results(slow=mesh in SLOW)[mesh]


@functools.cache
def gradient_results() -> dict[str, Any]:
    return run(PROGRAM, [f"{mesh}:gradients" for mesh in GRADIENTS])


@pytest.mark.parametrize("mesh", marked(*FAST, *SLOW))
def test_unet_equals_one_device(mesh: str) -> None:
    assert forward_results(mesh)["unet"]["error"] <= TOLERANCE


@pytest.mark.parametrize("mesh", marked(*FAST, *SLOW))
def test_decoding_equals_one_device(mesh: str) -> None:
    assert forward_results(mesh)["decode"]["error"] <= TOLERANCE


def test_images_are_decoded_on_all_devices_without_communication() -> None:
    result = _forward_results(slow=False)["data=2,frames=2"]["decode_images"]
    assert result["error"] <= TOLERANCE
    assert result["collectives"] == {}


@pytest.mark.parametrize("mesh", marked("frames=2", "frames=4", "frames=8", "data=2,frames=4"))
def test_frames_are_exchanged_for_pixels_and_never_gathered(mesh: str) -> None:
    collectives = forward_results(mesh)["unet"]["collectives"]
    # Group norms that pool over frames reduce; two exchanges for each of the 6 temporal layers.
    assert set(collectives) == {"all-reduce", "all-to-all"}
    assert collectives["all-to-all"] == 12


@pytest.mark.parametrize("axis", marked("data=2", "data=4", "data=8"))
def test_samples_need_no_communication(axis: str) -> None:
    assert forward_results(axis)["unet"]["collectives"] == {}


@pytest.mark.parametrize("mesh", marked("frames=8", "data=2,frames=4"))
def test_frames_are_decoded_without_communication(mesh: str) -> None:
    assert forward_results(mesh)["decode"]["collectives"] == {}


@pytest.mark.slow
@pytest.mark.parametrize("mesh", GRADIENTS)
def test_gradients_equal_one_device(mesh: str) -> None:
    assert gradient_results()[mesh]["gradients"]["error"] <= TOLERANCE
