"""On a mesh, a training step gives what it gives on one device, and leaves everything in place."""

import functools
from typing import Any

import pytest

from tests.parallel.simulated_devices import MIXED, ONE_AXIS, run

pytestmark = pytest.mark.slow

MESHES = ONE_AXIS + MIXED
TEXT_MESHES = ("data=2,fsdp=2,frames=2", "fsdp=2,frames=2,tensor=2")
# float32 sums in another order.
TOLERANCE = 1e-5


@functools.cache
def results() -> dict[str, Any]:
    return run("sharded_training.py", MESHES)


@functools.cache
def with_text_encoders() -> dict[str, Any]:
    return run("sharded_training.py", ["text", *TEXT_MESHES])


@pytest.mark.parametrize("mesh", TEXT_MESHES)
def test_factors_of_text_encoders_train_as_on_one_device(mesh: str) -> None:
    result = with_text_encoders()[mesh]
    assert result["numbers"] <= TOLERANCE
    assert result["parameters"] <= TOLERANCE
    assert result["average"] <= TOLERANCE
    assert result["misplaced"] == []


@pytest.mark.parametrize("mesh", MESHES)
def test_steps_equal_those_of_one_device(mesh: str) -> None:
    """The loss and the norm of the gradients, and the parameters and their average afterwards."""
    result = results()[mesh]
    assert result["numbers"] <= TOLERANCE
    assert result["parameters"] <= TOLERANCE
    assert result["average"] <= TOLERANCE


@pytest.mark.parametrize("mesh", MESHES)
def test_parameters_moments_and_average_lie_where_they_are_meant_to(mesh: str) -> None:
    assert results()[mesh]["misplaced"] == []


@pytest.mark.parametrize("size", [2, 4, 8])
def test_moments_are_split_over_fsdp(size: int) -> None:
    """Vectors are whole, and a few kernels have no axis that divides by 8."""
    assert results()[f"fsdp={size}"]["moments_held"] < 1 / size + 0.06


@pytest.mark.parametrize("size", [2, 4, 8])
def test_moments_are_whole_where_only_samples_are_split(size: int) -> None:
    assert results()[f"data={size}"]["moments_held"] == 1
