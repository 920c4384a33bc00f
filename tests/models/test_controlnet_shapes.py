"""Reading a configuration off the tensors of a single file."""

import dataclasses
from typing import Any

import pytest
from controlnet_cases import golden_json
from flax import nnx

from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.errors import HotshotError
from hotshot_jax.models import ControlNetUnionConfig, controlnet_class
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.shapes import Shapes, config_values

FULL = ControlNetConfig.from_dict(golden_json("models/sdxl_full.controlnet.config.json"))


def config_from_shapes(shapes: Shapes) -> ControlNetConfig:
    return ControlNetConfig.from_dict(config_values(shapes, "file"), "file")


def shapes_of(config: ControlNetConfig) -> dict[str, tuple[int, ...]]:
    model = nnx.eval_shape(lambda: controlnet_class(config)(config, rngs=nnx.Rngs(0)))
    return {name: slot.shape for name, slot in torch_slots(model).items()}


def test_the_published_file() -> None:
    listed = golden_json("models/sdxl_full.controlnet.shapes.json")
    shapes = {name: tuple(entry["shape"]) for name, entry in listed.items()}
    # A level without transformers has no depth to be read.
    expected = dataclasses.replace(FULL, transformer_layers_per_block=(0, 2, 10))
    assert config_from_shapes(shapes) == expected


SMALL_LEVELS: dict[str, Any] = {
    "block_out_channels": (64, 128),
    "attention_head_dim": (1, 2),
    "norm_num_groups": 32,
    "cross_attention_dim": 48,
}


@pytest.mark.parametrize(
    "changes",
    [
        {
            "down_block_types": ("DownBlock2D", "DownBlock2D"),
            "mid_block_type": "UNetMidBlock2D",
            "transformer_layers_per_block": (0, 0),
            "cross_attention_dim": 2048,
        },
        {
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "transformer_layers_per_block": (0, 1),
            "layers_per_block": 1,
        },
        {
            "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "transformer_layers_per_block": (0, 2),
            "conditioning_embedding_out_channels": (4, 6, 8),
            "conditioning_channels": 1,
        },
    ],
)
def test_the_smaller_sizes(changes: dict[str, Any]) -> None:
    config = dataclasses.replace(FULL, **SMALL_LEVELS | changes)
    assert config_from_shapes(shapes_of(config)) == config


def test_a_union() -> None:
    values = {
        field.name: getattr(FULL, field.name) for field in dataclasses.fields(ControlNetConfig)
    }
    values |= SMALL_LEVELS | {
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "transformer_layers_per_block": (0, 1),
        "num_control_type": 8,
        "num_trans_channel": 64,
        "num_proj_channel": 64,
        "num_trans_layer": 2,
    }
    config = ControlNetUnionConfig(**values)
    assert config_from_shapes(shapes_of(config)) == config


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"lora_controlnet": (1,)}, "a Control-LoRA, which is not supported"),
        ({"conv_in.weight": (320, 4, 3, 3)}, "not a ControlNet: there is no tensor"),
        (
            {
                "conv_in.weight": (320, 4, 3, 3),
                "controlnet_cond_embedding.conv_in.weight": (16, 3, 3, 3),
                "down_blocks.0.resnets.0.conv1.weight": (320, 320, 3, 3),
            },
            "for Stable Diffusion 1.5 or 2",
        ),
    ],
)
def test_other_files_are_refused(shapes: dict[str, tuple[int, ...]], message: str) -> None:
    with pytest.raises(HotshotError, match=f"^file: .*{message}"):
        config_from_shapes(shapes)


def test_unknown_widths_are_refused() -> None:
    config = ControlNetConfig.from_dict(golden_json("models/controlnet_tiny.config.json"))
    with pytest.raises(HotshotError, match="the number of heads is unknown"):
        config_from_shapes(shapes_of(config))
