"""How times are taken, and that what is compared has the same shape."""

import math
from importlib import metadata

import pytest
import torch
from flax import nnx

from benchmarks.models.sized_unet import torch_unet, unet_size
from benchmarks.running.timing import Timing, circumstances, in_turns, repeats_of
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.training.trainees.trainee import is_trained


def test_ways_take_turns_after_a_run_that_is_not_timed() -> None:
    runs: list[str] = []
    timings = in_turns({"a": lambda: runs.append("a"), "b": lambda: runs.append("b")}, repeats=5)
    assert runs == ["a", "b"] * 6
    assert {name: len(timing.seconds) for name, timing in timings.items()} == {"a": 5, "b": 5}


def test_the_median_comes_with_its_spread() -> None:
    report = Timing((3.0, 1.0, 2.0, 9.0, 2.5)).report()
    assert report == {
        "median_seconds": 2.5,
        "lowest_seconds": 1.0,
        "highest_seconds": 9.0,
        "repeats": 5,
    }


def test_few_repeats_are_refused() -> None:
    assert repeats_of("5") == 5
    with pytest.raises(Exception, match="at least 5"):
        repeats_of("4")


def test_circumstances() -> None:
    found = circumstances("jax", "no-such-package")
    assert found["versions"] == {"jax": metadata.version("jax")}
    assert found["cores"] >= 1


@pytest.mark.parametrize("name", ["tiny", "mid"])
def test_pytorch_s_unet_has_the_same_spatial_layers(name: str) -> None:
    size = unet_size(name)
    ours = nnx.eval_shape(lambda: UNet3DConditionModel(size.config, rngs=nnx.Rngs(0)))
    spatial = sum(
        math.prod(leaf.shape)
        for path, leaf in flat_parameters(ours).items()
        if is_trained(path, "spatial")
    )
    theirs = torch_unet(size, "float32", "meta")
    assert isinstance(theirs, torch.nn.Module)
    assert sum(parameter.numel() for parameter in theirs.parameters()) == spatial
