"""Single files that hold something else, or not all of it."""

import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sdxl_tiny import HEADS, UNET_ALONE, write

from hotshot_jax.convert.formats.ldm_names import PREFIXES
from hotshot_jax.convert.formats.single_file import open_single_file
from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.errors import HotshotError


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["cond_stage_model.transformer.text_model.final_layer_norm.weight"], "Diffusion 1.x"),
        (["cond_stage_model.model.ln_final.weight"], "Diffusion 2.x"),
        (["conditioner.embedders.0.model.ln_final.weight"], "refiner"),
        (["model.diffusion_model.joint_blocks.0.x_block.mlp.fc1.weight"], "Stable Diffusion 3"),
        (["double_blocks.0.img_attn.norm.key_norm.scale"], "Flux"),
        (["lora_unet_input_blocks_4_1_proj_in.lora_down.weight"], "LoRA.*`loras`"),
        (["unet.down_blocks.1.attentions.0.proj_in.lora_A.weight"], "LoRA.*`loras`"),
        (["control_model.input_blocks.0.0.weight"], "ControlNet"),
        (["controlnet_cond_embedding.conv_in.weight"], "ControlNet"),
        (["clip_g", "clip_l"], "textual inversion.*`embeddings`"),
        (["down_blocks.0.temporal_attentions.0.norm.weight"], "temporal layers.*`temporal`"),
        (["something.else"], "no SDXL model"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, keys, message):
    source = write(tmp_path, {key: np.zeros((1, 1), np.float32) for key in keys})
    with pytest.raises(HotshotError, match=message):
        open_single_file(source)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_blocks.0.0.weight": np.zeros((32, 9, 3, 3), np.float32)}, "inpainting"),
        ({"input_blocks.0.0.weight": np.zeros((32, 8, 3, 3), np.float32)}, "pix2pix"),
        ({"input_blocks.0.0.weight": np.zeros((384, 4, 3, 3), np.float32)}, "refiner"),
        ({"input_blocks.4.1.proj_in.weight": np.zeros((64, 64, 1, 1), np.float32)}, "1.x or 2.x"),
        ({"input_blocks.4.1.proj_in.weight": np.zeros((64, 64), np.int8)}, "not supported"),
        (
            {"input_blocks.4.1.proj_in.weight": np.zeros((64, 64), ml_dtypes.float8_e4m3fn)},
            "float8_e4m3fn",
        ),
        ({"input_blocks.4.1.extra.weight": np.zeros(1, np.float32)}, "belong to no layer"),
        ({"input_blocks.4.1.norm.bias": None}, "incomplete, 1 tensors are missing"),
        ({"input_blocks.0.0.weight": None}, "incomplete or not SDXL"),
        ({"input_blocks.1.0.in_layers.2.weight": None}, "not a block of an SDXL UNet"),
    ],
)
def test_other_unets_are_refused_by_name(tmp_path, tensors, change, message):
    changed = {key: each for key, each in tensors.items() if key.startswith(PREFIXES["unet"])}
    for key, value in change.items():
        if value is None:
            del changed[PREFIXES["unet"] + key]
        else:
            changed[PREFIXES["unet"] + key] = value
    with pytest.raises(HotshotError, match=message):
        open_single_file(write_any(tmp_path, changed), UNET_ALONE)


def write_any(tmp_path, tensors) -> TensorSource:
    """With the types that NumPy's own writer does not know."""

    def tensor(each):
        if each.dtype == ml_dtypes.float8_e4m3fn:
            return torch.tensor(each.astype(np.float32)).to(torch.float8_e4m3fn)
        if each.dtype == ml_dtypes.bfloat16:
            return torch.tensor(each.astype(np.float32)).to(torch.bfloat16)
        return torch.tensor(each)

    path = tmp_path / "model.safetensors"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save_file({name: tensor(each).contiguous() for name, each in tensors.items()}, path)
    return open_file(path)


def test_pruned_unet_is_refused(tmp_path, tensors):
    pruned = {
        name: each
        for name, each in tensors.items()
        if "diffusion_model.middle_block.1.transformer_blocks.2." not in name
    }
    with pytest.raises(HotshotError, match="pruned"):
        open_single_file(write(tmp_path, pruned), HEADS)
