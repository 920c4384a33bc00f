"""What trains, and taking models apart by it."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import UsageError
from hotshot_jax.training.trainees.trainee import Division, trained_names
from tests.tiny_checkpoint import tiny_configs

GOLDEN = Path(__file__).parents[2] / "golden"


@pytest.fixture(scope="module")
def golden_unet() -> nnx.Module:
    config = json.loads((GOLDEN / "models" / "unet_tiny.config.json").read_text())
    return abstract(model_builder("unet", config, where="unet_tiny"))


def test_the_list_is_the_reference_s_in_its_order(golden_unet: nnx.Module) -> None:
    case = json.loads((GOLDEN / "cases" / "train_step.json").read_text())
    assert trained_names(golden_unet, "temporal") == case["trained_parameters"]


def test_everything_is_listed_in_the_order_of_the_state_dict(golden_unet: nnx.Module) -> None:
    shapes = json.loads((GOLDEN / "models" / "unet_tiny.shapes.json").read_text())
    names = [name for name, entry in shapes.items() if not entry["buffer"]]
    assert trained_names(golden_unet, "unet") == names
    assert trained_names(golden_unet, "spatial") == [n for n in names if "temporal" not in n]


def test_an_unknown_selection_is_refused(golden_unet: nnx.Module) -> None:
    with pytest.raises(UsageError, match="`train` vae is unknown; expected temporal, spatial"):
        trained_names(golden_unet, "vae")


@pytest.mark.slow
def test_a_divided_model_is_put_together_again() -> None:
    build = model_builder("unet", tiny_configs()["unet"], where="unet", param_dtype="bfloat16")
    unet = jax.jit(lambda: build(nnx.Rngs(0)))()
    division = Division.of(unet, "temporal")
    trained, frozen = division.split(unet)
    assert {leaf.dtype.name for leaf in trained.values()} == {"float32"}
    assert {leaf.dtype.name for leaf in frozen.values()} == {"bfloat16"}
    assert all("temporal_attentions" in name for name in trained)
    merged = flat_parameters(division.merge(trained, frozen))
    for path, leaf in flat_parameters(unet).items():
        np.testing.assert_array_equal(np.asarray(merged[path], np.float32), np.float32(leaf))
