import json
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from benchmarks import train_step
from benchmarks.compile.abstract_arrays import Size


def measured(capsys: pytest.CaptureFixture[str], *given: str | Path) -> dict:
    assert train_step.main([*map(str, given), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.slow
def test_the_step_of_a_small_model_is_timed(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--batch_size", "2", "--video_length", "2", "--size", "16", "--repeats", "5"]
    report = measured(
        capsys, "--pretrained_path", tiny_checkpoint, *given, "--no-torch", "--no-full"
    )
    step = report["step"]
    low, high = step["step_seconds_range"]
    assert 0 < low <= step["step_seconds"] <= high < step["compile_seconds"]
    assert step["samples_per_second"] == pytest.approx(2 / step["step_seconds"], rel=0.01)
    assert step["batch"] == [2, 2, 16, 16]
    assert step["flops_per_second"] == pytest.approx(step["flops"] / step["step_seconds"], rel=1e-2)
    # Weights alone, and three times what trains: itself and two moments.
    weights = 4 * (step["parameters"] + 2 * step["trained_parameters"])
    assert weights < step["argument_bytes"] < 1.1 * weights
    assert set(report) == {"device", "step"}


@pytest.mark.slow
def test_pytorch_takes_the_same_step_of_the_spatial_layers(
    tiny_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    given = ["--batch_size", "2", "--video_length", "2", "--size", "16", "--repeats", "5"]
    report = measured(capsys, "--pretrained_path", tiny_checkpoint, *given, "--no-full")
    spatial = report["spatial"]
    assert spatial["batch"] == [2, 1, 16, 16]
    assert spatial["here"]["step_seconds"] > 0 and spatial["torch"]["step_seconds"] > 0


def test_what_is_kept_is_counted_without_parameters_and_once() -> None:
    def loss(trained, frozen, batch, key):
        hidden = jnp.tanh(batch @ frozen)
        return (jnp.sin(hidden @ trained)).sum(), {}

    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(8, 4), (16, 8), (2, 16)]]
    # The product's input [2, 8] for the gradient of `trained`, and the cosine [2, 4].
    assert train_step.kept_bytes(loss, *shapes) == 4 * (2 * 8 + 2 * 4)


@pytest.mark.slow
def test_memory_from_shapes() -> None:
    kept, again = (
        train_step.full_memory(Size("tiny", 16, 16, 2, 1, 1, "temporal", name))
        for name in ("none", "blocks")
    )
    # Two moments and some counters.
    assert 2 * kept["trained_bytes"] < kept["moments_bytes"] < 2.01 * kept["trained_bytes"]
    assert kept["gradients_bytes"] == kept["trained_bytes"]
    assert 0 < again["kept_bytes"] < 0.7 * kept["kept_bytes"]
    assert again["frozen_bytes"] == kept["frozen_bytes"] > 0
    parts = ("frozen", "trained", "moments", "gradients", "kept")
    assert kept["bytes"] == sum(kept[f"{name}_bytes"] for name in parts)


def test_few_repeats_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert train_step.main(["--repeats", "2"]) == 2
    assert "--repeats is 2" in capsys.readouterr().err
