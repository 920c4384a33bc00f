"""LoRAs in a pipeline: which weights they change, and changing their strengths."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hotshot_jax.cli.convert.command import main as convert
from hotshot_jax.convert.tensors.rules import Path as ParameterPath, flat_parameters
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.loras import COMPONENTS
from tests.lora_files import factors, is_spatial, is_temporal, is_text, write_lora

SIZE: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 2}
Weights = dict[tuple[str, ParameterPath], np.ndarray]


@pytest.fixture(scope="module")
def spatial(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = factors(tiny_checkpoint, choose=is_spatial)
    for component in ("text_encoder", "text_encoder_2"):
        tensors |= factors(tiny_checkpoint, choose=is_text, component=component, seed=1)
    return write_lora(tmp_path_factory.mktemp("lora") / "spatial.safetensors", tensors)


@pytest.fixture(scope="module")
def temporal(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tensors = factors(tiny_checkpoint, choose=is_temporal, seed=2)
    return write_lora(tmp_path_factory.mktemp("lora") / "temporal.safetensors", tensors)


@pytest.fixture(scope="module")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "tiny"
    assert convert([str(tiny_checkpoint), str(folder)]) == 0
    return folder


def load(checkpoint: Path, *loras: tuple[Path, float], **options: Any) -> HotshotXLPipeline:
    given = [(str(path), scale) for path, scale in loras]
    return HotshotXLPipeline.from_pretrained(
        str(checkpoint), **({"precision": "f32"} | options), loras=given
    )


def weights(pipeline: HotshotXLPipeline) -> Weights:
    return {
        (name, path): np.asarray(parameter)
        for name in (*COMPONENTS, "vae")
        for path, parameter in flat_parameters(pipeline.components.model(name)).items()
    }


def changed(one: Weights, other: Weights) -> set[tuple[str, ParameterPath]]:
    assert one.keys() == other.keys()
    return {key for key in one if one[key].tobytes() != other[key].tobytes()}


@pytest.fixture(scope="module")
def base(tiny_checkpoint: Path) -> Weights:
    return weights(load(tiny_checkpoint))


def test_a_lora_of_another_prediction_is_told(
    tiny_checkpoint: Path, spatial: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for said, told in (("v", True), ("epsilon", False)):
        file = tmp_path / f"{said}.safetensors"
        save_file(load_file(spatial), file, {"modelspec.prediction_type": said})
        load(tiny_checkpoint, (file, 1.0))
        assert ("trained on a model that predicts v_prediction" in caplog.text) == told
        caplog.clear()


def is_temporal_path(key: tuple[str, ParameterPath]) -> bool:
    return "temporal_attentions" in key[1]


def test_spatial_loras_leave_temporal_weights_bit_equal(
    tiny_checkpoint: Path, spatial: Path, base: Weights
) -> None:
    different = changed(base, weights(load(tiny_checkpoint, (spatial, 1.0))))
    assert {component for component, _ in different} == set(COMPONENTS)
    assert not any(map(is_temporal_path, different))


def test_temporal_loras_leave_spatial_weights_bit_equal(
    tiny_checkpoint: Path, temporal: Path, base: Weights
) -> None:
    different = changed(base, weights(load(tiny_checkpoint, (temporal, 1.0))))
    assert different
    assert all(map(is_temporal_path, different))


def test_scale_zero_is_none(tiny_checkpoint: Path, spatial: Path, base: Weights) -> None:
    assert not changed(base, weights(load(tiny_checkpoint, (spatial, 0.0))))


def test_two_add_up(tiny_checkpoint: Path, spatial: Path, tmp_path: Path, base: Weights) -> None:
    tensors = factors(tiny_checkpoint, choose=is_spatial, seed=3)
    other = write_lora(tmp_path / "other.safetensors", tensors)
    alone = [weights(load(tiny_checkpoint, each)) for each in ((spatial, 0.6), (other, -1.5))]
    both = weights(load(tiny_checkpoint, (spatial, 0.6), (other, -1.5)))
    for key, value in base.items():
        expected = value + (alone[0][key] - value) + (alone[1][key] - value)
        # float32, and sums in another order.
        np.testing.assert_allclose(both[key], expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_converted_checkpoints_take_loras(
    tiny_checkpoint: Path, converted: Path, spatial: Path, temporal: Path, precision: str
) -> None:
    one, other = (
        load(checkpoint, (spatial, 0.8), (temporal, 0.5), precision=precision)
        for checkpoint in (tiny_checkpoint, converted)
    )
    assert not changed(weights(one), weights(other))
    for pipeline in (one, other):
        pipeline.set_lora("spatial", 0.3)
    assert not changed(weights(one), weights(other))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_another_strength_is_what_loading_with_it_gives(
    tiny_checkpoint: Path, spatial: Path, temporal: Path, precision: str
) -> None:
    pipeline = load(tiny_checkpoint, (spatial, 1.0), (temporal, 1.0), precision=precision)
    for scale in (0.3, 7.0, -0.5):
        pipeline.set_lora(str(spatial), scale)
    pipeline.set_lora("temporal", 0.25)
    assert [each.scale for each in pipeline.loras] == [-0.5, 0.25]
    expected = load(tiny_checkpoint, (spatial, -0.5), (temporal, 0.25), precision=precision)
    assert not changed(weights(pipeline), weights(expected))
    pipeline.set_lora("spatial", 0)
    pipeline.set_lora("temporal", 0)
    assert not changed(weights(pipeline), weights(load(tiny_checkpoint, precision=precision)))


@pytest.mark.parametrize("low_vram_mode", [False, True])
def test_another_strength_shows_in_the_picture_and_compiles_nothing(
    tiny_checkpoint: Path, spatial: Path, low_vram_mode: bool
) -> None:
    pipeline = load(tiny_checkpoint, (spatial, 1.0), low_vram_mode=low_vram_mode)
    strong = pipeline("a fox", **SIZE).videos
    compiled = dict(pipeline.runtime._programs._compiled)
    pipeline.set_lora("spatial", 0.2)
    weak = pipeline("a fox", **SIZE).videos
    assert pipeline.runtime._programs._compiled == compiled
    assert np.abs(strong - weak).max() > 1e-3
    pipeline.set_lora("spatial", 1.0)
    np.testing.assert_array_equal(pipeline("a fox", **SIZE).videos, strong)


def test_what_cannot_be_set_changes_nothing(
    tiny_checkpoint: Path, spatial: Path, tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint"
    shutil.copytree(tiny_checkpoint, checkpoint)
    pipeline = load(checkpoint, (spatial, 1.0))
    before = weights(pipeline)
    for name, scale, message in (
        ("nothing", 1.0, "nothing is not among the LoRAs; loaded are: "),
        ("spatial", float("nan"), "expected a finite number"),
        ("spatial", float("inf"), "expected a finite number"),
    ):
        with pytest.raises(UsageError, match=message):
            pipeline.set_lora(name, scale)
    assert pipeline.loras[0].scale == 1.0
    assert not changed(before, weights(pipeline))


def test_two_of_one_name_cannot_be_told_apart(tiny_checkpoint: Path, spatial: Path) -> None:
    pipeline = load(tiny_checkpoint, (spatial, 1.0), (spatial, 0.5))
    with pytest.raises(UsageError, match="loaded more than once"):
        pipeline.set_lora("spatial", 0.1)


def test_a_pipeline_without_loras(tiny_checkpoint: Path) -> None:
    pipeline = load(tiny_checkpoint)
    assert pipeline.loras == ()
    with pytest.raises(UsageError, match="loaded are: none"):
        pipeline.set_lora("spatial", 1.0)


def test_a_scale_that_is_no_number(tiny_checkpoint: Path, spatial: Path) -> None:
    with pytest.raises(UsageError, match="expected a finite number"):
        load(tiny_checkpoint, (spatial, float("nan")))


def test_a_missing_file(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match="missing"):
        load(tiny_checkpoint, (tmp_path / "missing.safetensors", 1.0))
