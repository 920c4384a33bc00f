"""Models of the published sizes: all of them abstractly, one level of the UNet for real."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2DCrossAttn
from flax import nnx
from torch_twins import build, fill, from_torch, names, normal, relative_error, to_torch

from benchmarks.models.loading import parameter_count
from hotshot_jax.convert.load import abstract
from hotshot_jax.convert.tensors.rules import POSITIONAL_TABLE, torch_slots
from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    CLIPTextConfig,
    CLIPTextModel,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.blocks import UNetMidBlock3DCrossAttn

MODELS = Path(__file__).parents[1] / "golden" / "models"
COUNTS = json.loads((MODELS / "parameter_counts.json").read_text())


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """The learned tensors that a model is to have."""
    entries = json.loads((MODELS / f"{name}.shapes.json").read_text())
    buffers = {key for key, entry in entries.items() if entry["buffer"]}
    assert all(key.endswith(POSITIONAL_TABLE) for key in buffers)
    return {key: tuple(entry["shape"]) for key, entry in entries.items() if key not in buffers}


def full_size(name: str) -> nnx.Module:
    values = json.loads((MODELS / f"{name}.config.json").read_text())
    makers: dict[str, Any] = {
        "UNet3DConditionModel": (UNet3DConfig, UNet3DConditionModel),
        "UNet2DConditionModel": (UNet3DConfig, UNet3DConditionModel),
        "AutoencoderKL": (AutoencoderKLConfig, AutoencoderKL),
        "CLIPTextModel": (CLIPTextConfig, CLIPTextModel),
        "CLIPTextModelWithProjection": (CLIPTextConfig, CLIPTextModel),
    }
    config_class, model = makers[values["_class_name"]]
    config = config_class.from_dict(values)
    return abstract(lambda rngs: model(config, rngs=rngs))


@pytest.mark.parametrize(
    "name",
    [
        "hotshot_xl_full.unet",
        "sdxl_full.text_encoder",
        "sdxl_full.text_encoder_2",
        "sdxl_full.vae",
    ],
)
def test_names_and_shapes(name: str) -> None:
    module = full_size(name)
    assert {slot.name: slot.shape for slot in torch_slots(module).values()} == shapes(name)
    assert parameter_count(module) == COUNTS[name]["parameters"]


def test_names_and_shapes_of_the_spatial_unet() -> None:
    """A plain SDXL UNet's configuration gives the same model, with temporal layers to be filled."""
    slots = torch_slots(full_size("sdxl_full.unet2d")).values()
    spatial = {slot.name: slot.shape for slot in slots if "temporal" not in slot.name}
    assert spatial == shapes("sdxl_full.unet2d")


CHANNELS, HEADS, DEPTH, TEXT_CHANNELS, TIME_CHANNELS = 1280, 20, 10, 2048, 1280


@pytest.mark.slow
def test_lowest_level_equals_diffusers() -> None:
    """1280 channels, ten transformer blocks deep, 410 million parameters."""
    values = json.loads((MODELS / "hotshot_xl_full.unet.config.json").read_text())
    level = UNet3DConfig.from_dict(values).levels(pool_frames=True)[-1]
    block = build(
        lambda rngs: UNetMidBlock3DCrossAttn(level, Layers.create(rngs, jnp.float32, jnp.float32))
    )
    assert parameter_count(block) > 400e6
    twin = UNetMidBlock2DCrossAttn(
        in_channels=CHANNELS,
        temb_channels=TIME_CHANNELS,
        transformer_layers_per_block=DEPTH,
        num_attention_heads=HEADS,
        resnet_groups=32,
        resnet_eps=1e-5,
        cross_attention_dim=TEXT_CHANNELS,
        use_linear_projection=True,
    )
    assert set(torch_slots(block)) == names(twin)
    fill(twin)
    x = normal(0, 2, 1, 6, 8, CHANNELS)
    time, text = normal(1, 2, TIME_CHANNELS), normal(2, 2, 77, TEXT_CHANNELS)
    expected = twin(
        to_torch(x[:, 0]), torch.from_numpy(time), encoder_hidden_states=torch.from_numpy(text)
    )

    @jax.jit
    def run(block: Any, x: jax.Array, time: jax.Array, text: jax.Array) -> jax.Array:
        return block(x, time[:, None], block.project_text(text[:, None]))

    # Sums over 1280 to 11520 products, thirty layers one after another.
    assert relative_error(run(block, x, time, text)[:, 0], from_torch(expected)) < 1e-5
