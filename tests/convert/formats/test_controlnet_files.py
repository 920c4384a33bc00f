"""ControlNets from files and folders, in diffusers' and in the original names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.loaders.single_file_utils import convert_controlnet_checkpoint
from safetensors.numpy import save_file

from hotshot_jax.convert.builders import CONTROLNET, model_builder
from hotshot_jax.convert.formats.controlnet_files import is_controlnet, open_controlnet
from hotshot_jax.convert.load import match_module
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models.controlnet.config import ControlNetConfig
from tests.convert.controlnet_files import CONFIG, controlnet_tensors, original_names


@pytest.fixture(scope="module")
def tensors() -> dict[str, np.ndarray]:
    return controlnet_tensors()


def original(tensors: dict[str, np.ndarray], prefix: str = "control_model.") -> dict:
    names = original_names(tensors, prefix)
    return {names[name]: tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize("spelling", ["control_model.", "", "diffusers"])
def test_a_single_file(tmp_path: Path, tensors: dict[str, np.ndarray], spelling: str) -> None:
    file = tmp_path / "net.safetensors"
    save_file(tensors if spelling == "diffusers" else original(tensors, spelling), file)
    opened = open_controlnet(str(file))
    assert set(opened.tensors) == set(tensors)
    for name, expected in tensors.items():
        np.testing.assert_array_equal(opened.tensors.read(name), expected)
    # A level without transformers has no depth to be read.
    read = ControlNetConfig.from_dict(opened.config)
    assert read == ControlNetConfig.from_dict(CONFIG | {"transformer_layers_per_block": [0, 1, 2]})
    match_module(model_builder(CONTROLNET, opened.config, where="test"), opened.tensors, where="x")


def test_diffusers_own_conversion_agrees(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    stored = original(tensors)
    theirs = convert_controlnet_checkpoint(
        {name: torch.from_numpy(tensor) for name, tensor in stored.items()}, CONFIG
    )
    file = tmp_path / "net.safetensors"
    save_file(stored, file)
    ours = open_controlnet(str(file)).tensors
    # It has no place for the embedding of sizes and pooled text, which only SDXL's have.
    assert {name for name in ours if name not in theirs} <= {
        name for name in ours if name.startswith("add_embedding.")
    }
    for name, tensor in theirs.items():
        np.testing.assert_array_equal(ours.read(name), tensor.numpy())


@pytest.mark.parametrize(
    ("key", "what"),
    [
        ("lllite_unet_input_blocks_4_1_proj_in.down.0.weight", "a ControlNet-LLLite"),
        ("adapter.body.0.resnets.0.block1.weight", "a T2I-Adapter"),
        ("image_proj.latents", "an IP-Adapter"),
        ("lora_unet_conv_in.lora_down.weight", "a LoRA; give it with `loras`"),
        ("lora_controlnet", "a Control-LoRA"),
    ],
)
def test_what_is_no_controlnet_is_named(tmp_path: Path, key: str, what: str) -> None:
    save_file({key: np.ones((2, 2), np.float32)}, tmp_path / "a.safetensors")
    with pytest.raises(HotshotError, match=f"is {what}"):
        open_controlnet(str(tmp_path / "a.safetensors"))


def test_a_folder_of_another_adapter_is_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"_class_name": "T2IAdapter"}')
    with pytest.raises(HotshotError, match="holds T2IAdapter, not a ControlNet"):
        open_controlnet(str(tmp_path))


def test_tensors_of_no_layer_are_named(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    file = tmp_path / "net.safetensors"
    save_file(original(tensors) | {"control_model.new_block.0.weight": np.zeros(2)}, file)
    opened = open_controlnet(str(file))
    with pytest.raises(HotshotError, match=r"new_block\.0\.weight"):
        match_module(model_builder(CONTROLNET, opened.config, where="x"), opened.tensors, where="x")


def test_files_that_are_refused(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    file = tmp_path / "net.safetensors"
    without_sizes = {
        name: tensor for name, tensor in original(tensors).items() if "label_emb" not in name
    }
    for content, message in (
        (without_sizes, "ControlNet for Stable Diffusion 1.5 or 2"),
        ({"lora_controlnet": np.zeros(1)}, "Control-LoRA"),
        ({"a.weight": np.zeros(1)}, "not a ControlNet"),
        ({"conv_in.weight": np.zeros((1, 1), np.int8)}, "int8"),
    ):
        save_file(content, file)
        with pytest.raises(HotshotError, match=message):
            open_controlnet(str(file))
    (tmp_path / "net.pth").write_bytes(b"\x80\x04")
    with pytest.raises(HotshotError, match="pickle"):
        open_controlnet(str(tmp_path / "net.pth"))
    with pytest.raises(UsageError, match="none"):
        open_controlnet(str(tmp_path / "none"))


def test_what_is_a_controlnet(tmp_path: Path, tiny_checkpoint: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"_class_name": "ControlNetUnionModel"}))
    assert is_controlnet(str(tmp_path))
    assert not is_controlnet(str(tiny_checkpoint))
    assert not is_controlnet(str(tiny_checkpoint / "unet"))
    assert not is_controlnet("org/model")
