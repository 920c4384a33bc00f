"""A model with other positions, heads and groups than the published one keeps them everywhere."""

import json
from pathlib import Path

import numpy as np
import pytest
from diffusers import MotionAdapter
from safetensors.numpy import load_file

from hotshot_jax.cli.convert.command import main
from hotshot_jax.convert.assembly import Parts, known_positions, open_assembled, open_temporal
from hotshot_jax.convert.formats.temporal_shape import read_shape
from hotshot_jax.convert.prepare import open_checkpoint, prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.training.trainees.trainee import Division, export
from tests.tiny_checkpoint import tiny_configs, write_tiny_checkpoint

WORDS = {"temporal_positions": 32, "temporal_heads": 4, "temporal_groups": 16}
SHAPE = TemporalShape(32, 4, 16)
UNET = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    configs = tiny_configs()
    configs["unet"] |= WORDS
    return write_tiny_checkpoint(tmp_path_factory.mktemp("other") / "model", configs=configs)


@pytest.fixture(scope="module")
def converted(other: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted") / "model"
    assert main([str(other), str(folder)]) == 0
    return folder


def stated(folder: Path) -> dict[str, int]:
    config = json.loads((folder / "config.json").read_text())
    return {word: config.get(word) for word in WORDS}


def same_tensors(one: Path, other: Path) -> None:
    first, second = load_file(one), load_file(other)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        np.testing.assert_array_equal(tensor, second[name])


def test_converting_there_and_back(other: Path, converted: Path, tmp_path: Path) -> None:
    assert {len(t[0]) for n, t in load_file(other / UNET).items() if "pos_encoder" in n} == {32}
    assert stated(converted / "unet") == WORDS
    assert main([str(converted), str(tmp_path / "back"), "--to-torch"]) == 0
    assert stated(tmp_path / "back" / "unet") == WORDS
    same_tensors(other / UNET, tmp_path / "back" / UNET)


def test_training_exports_it(other: Path, tmp_path: Path) -> None:
    unet = prepare_component(open_checkpoint(other).unet, dtype=np.float32).load()
    division = Division.of(unet, "temporal")
    trained, _ = division.start(flat_parameters(unet), 0)
    export(tmp_path / "export", other, None, division, trained)
    assert stated(tmp_path / "export" / "unet") == WORDS
    same_tensors(other / UNET, tmp_path / "export" / UNET)
    file = tmp_path / "export" / "hsxl_temporal_layers.safetensors"
    assert open_temporal(str(file))[1] == SHAPE


@pytest.mark.parametrize(
    ("spelling", "name"),
    [("hotshot", "a.safetensors"), ("comfyui", "b.safetensors"), ("diffusers", "adapter")],
)
def test_temporal_layers_bring_their_shape(
    other: Path, tiny_checkpoint: Path, tmp_path: Path, spelling: str, name: str
) -> None:
    """From a checkpoint, from a converted one and from a file of them, to a published UNet."""
    assert main([str(other), str(tmp_path / name), "--temporal", spelling]) == 0
    assert known_positions(str(tmp_path / name)) == 32
    again = tmp_path / "again.safetensors"
    assert main([str(tmp_path / name), str(again), "--temporal", "hotshot"]) == 0
    assert main([str(other), str(tmp_path / "c.safetensors"), "--temporal", "hotshot"]) == 0
    same_tensors(again, tmp_path / "c.safetensors")
    unet = open_assembled(str(tiny_checkpoint), Parts(temporal=str(tmp_path / name))).components[
        "unet"
    ]
    module = prepare_component(unet, dtype=np.float32).module
    assert module.config.temporal == SHAPE


def test_diffusers_loads_the_adapter(converted: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapter"
    assert main([str(converted), str(folder), "--temporal", "diffusers"]) == 0
    adapter, found = MotionAdapter.from_pretrained(folder, output_loading_info=True)
    assert not any(found.values())
    assert adapter.config.motion_max_seq_length == 32
    assert adapter.config.motion_num_attention_heads == 4
    assert adapter.config.motion_norm_num_groups == 16
    module = adapter.down_blocks[0].motion_modules[0]
    assert (module.norm.num_groups, module.transformer_blocks[0].attn1.heads) == (16, 4)


def test_a_table_of_another_length_than_stated(other: Path, tmp_path: Path) -> None:
    configs = tiny_configs()
    folder = write_tiny_checkpoint(tmp_path / "model", configs=configs)
    (folder / UNET).write_bytes((other / UNET).read_bytes())
    with pytest.raises(HotshotError, match=r"\[1, 32, \d+\]; the model's is \[1, 24, channels\]"):
        prepare_component(open_checkpoint(folder).unet, dtype=np.float32)


@pytest.mark.parametrize("value", [0, -1, 2.5, True, None, "many", "²", [8]])
def test_an_impossible_shape(value: object) -> None:
    with pytest.raises(HotshotError, match=r"config.json: motion_max_seq_length = .*whole number"):
        read_shape({"motion_max_seq_length": value}, Path("config.json"))


def test_an_adapter_of_another_program(tmp_path: Path) -> None:
    """AnimateDiff's for SDXL has the same widths, but its UNet does not pool over frames."""
    adapter = MotionAdapter((32, 64), 1, motion_max_seq_length=32, use_motion_mid_block=False)
    adapter.save_pretrained(tmp_path)
    with pytest.raises(HotshotError, match=r"32 positions, 8 heads and 32 groups.*another model"):
        open_temporal(str(tmp_path))
