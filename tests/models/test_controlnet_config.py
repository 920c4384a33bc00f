"""Reading a ControlNet's config.json: what is accepted, and what is refused by name."""

import dataclasses
from typing import Any

import pytest
from controlnet_cases import BASE, golden_json

from hotshot_jax.errors import HotshotError
from hotshot_jax.models.controlnet.config import ControlNetConfig, ControlNetUnionConfig
from hotshot_jax.models.unet.config import UNet3DConfig


def test_reads_the_full_size_configuration() -> None:
    config = ControlNetConfig.from_dict(golden_json("models/sdxl_full.controlnet.config.json"))
    assert type(config) is ControlNetConfig
    assert config.conditioning_embedding_out_channels == (16, 32, 96, 256)
    assert config.size_ratio == 8
    assert config.skip_channels == [320] * 4 + [640] * 3 + [1280] * 2


def test_a_union_is_known_by_its_class_or_its_keys() -> None:
    union = BASE | {"num_trans_channel": 16, "num_proj_channel": 16}
    by_class = ControlNetConfig.from_dict(union | {"_class_name": "ControlNetUnionModel"})
    by_key = ControlNetConfig.from_dict(
        union | {"_class_name": "ControlNetModel", "num_control_type": 8}
    )
    assert isinstance(by_class, ControlNetUnionConfig)
    assert by_class.num_control_type == 6
    assert isinstance(by_key, ControlNetUnionConfig)
    assert by_key.num_control_type == 8


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "FluxControlNetModel"}, "the configuration of a FluxControlNetModel"),
        ({"_class_name": "UNet2DConditionModel"}, "expected an SDXL ControlNet"),
        (
            {"cross_attention_dim": 768, "addition_embed_type": None},
            "a ControlNet for Stable Diffusion 1.5",
        ),
        (
            {"cross_attention_dim": 1024, "addition_embed_type": None},
            "a ControlNet for Stable Diffusion 2",
        ),
        ({"addition_embed_type": "text"}, "addition_embed_type = 'text' is not supported"),
        ({"controlnet_conditioning_channel_order": "hsv"}, "expected 'rgb' or 'bgr'"),
        ({"global_pool_conditions": True}, "global_pool_conditions = True is not supported"),
        ({"mid_block_type": "MidBlock"}, "mid_block_type = 'MidBlock' is not supported"),
        ({"conditioning_embedding_out_channels": ()}, "is empty"),
        ({"transformer_layers_per_block": (1, -1)}, "whole numbers of at least 0"),
        ({"surprise": 3}, "unknown key surprise"),
        ({"num_control_type": 6}, "num_trans_channel = 320; expected 16"),
    ],
)
def test_refuses(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(HotshotError, match=f"^here.json: .*{message}"):
        ControlNetConfig.from_dict(BASE | changes, "here.json")


def test_a_missing_key_is_named() -> None:
    values = {key: value for key, value in BASE.items() if key != "cross_attention_dim"}
    with pytest.raises(HotshotError, match="missing cross_attention_dim"):
        ControlNetConfig.from_dict(values)


def test_fits_the_unet_it_was_made_for() -> None:
    unet = UNet3DConfig.from_dict(golden_json("models/unet_tiny.config.json"))
    config = ControlNetConfig.from_dict(golden_json("models/controlnet_tiny.config.json"))
    config.check_fits(unet, "controlnet")
    assert ControlNetConfig.from_unet(unet, (8, 16, 24, 32)) == config
    other = dataclasses.replace(config, cross_attention_dim=128)
    with pytest.raises(HotshotError, match="another UNet: cross_attention_dim is 128"):
        other.check_fits(unet, "controlnet")
