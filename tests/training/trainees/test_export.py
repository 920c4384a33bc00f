"""The exported folder, as PyTorch users load it."""

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.numpy import load_file
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from tests.training.conftest import Run


def test_the_folder_loads_in_diffusers_and_transformers(
    unbroken: Run, tiny_checkpoint: Path
) -> None:
    folder = unbroken.output / "export"
    AutoencoderKL.from_pretrained(folder, subfolder="vae")
    CLIPTextModel.from_pretrained(folder, subfolder="text_encoder")
    CLIPTextModelWithProjection.from_pretrained(folder, subfolder="text_encoder_2")
    CLIPTokenizer.from_pretrained(folder, subfolder="tokenizer")
    tensors = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    before = load_file(tiny_checkpoint / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(tensors) == set(before)
    changed = {name for name in tensors if not np.array_equal(tensors[name], before[name])}
    trained = {name for name in tensors if "temporal" in name and "pos_encoder" not in name}
    assert changed == trained

    # diffusers knows the UNet without its temporal layers.
    config = json.loads((folder / "unet" / "config.json").read_text())
    for key in ("down_block_types", "up_block_types"):
        config[key] = [name.replace("3D", "2D") for name in config[key]]
    config["mid_block_type"] = "UNetMidBlock2DCrossAttn"
    unet = UNet2DConditionModel.from_config(config)
    spatial = {n: torch.tensor(t) for n, t in tensors.items() if "temporal" not in n}
    unet.load_state_dict(spatial, strict=True)


def test_the_temporal_file_has_the_published_names_and_dtype(unbroken: Run) -> None:
    folder = unbroken.output / "export"
    layers = load_file(folder / "hsxl_temporal_layers.safetensors")
    unet = load_file(folder / "unet" / "diffusion_pytorch_model.safetensors")
    assert set(layers) == {name for name in unet if "temporal" in name}
    assert {tensor.dtype.name for tensor in layers.values()} == {"float32"}
    modules = {name.split("temporal_attentions.")[0] + name.split(".")[3] for name in layers}
    # 28 tensors a module, the two positional tables among them.
    assert len(layers) == 28 * len(modules)
    tables = [tensor for name, tensor in layers.items() if "pos_encoder" in name]
    assert {table.shape[:2] for table in tables} == {(1, 24)}
    for name, tensor in layers.items():
        np.testing.assert_array_equal(tensor, unet[name])


def test_the_export_can_be_trained_on_and_sampled_from(unbroken: Run, tmp_path: Path) -> None:
    from hotshot_jax.convert.prepare import open_checkpoint

    checkpoint = open_checkpoint(unbroken.output / "export")
    assert checkpoint.unet.config["_class_name"] == "UNet3DConditionModel"
