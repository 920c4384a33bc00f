"""Configurations: what is not implemented is an error that names the key."""

import json
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.models import AutoencoderKLConfig, CLIPTextConfig, UNet3DConfig

MODELS = Path(__file__).parents[1] / "golden" / "models"


def golden(name: str) -> dict[str, Any]:
    return json.loads((MODELS / f"{name}.config.json").read_text())


UNET, VAE, TEXT = golden("unet_tiny"), golden("vae_tiny"), golden("clip_g_tiny")


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("unet_tiny", UNet3DConfig),
        ("unet_tiny_groups16", UNet3DConfig),
        ("hotshot_xl_full.unet", UNet3DConfig),
        ("sdxl_full.unet2d", UNet3DConfig),
        ("vae_tiny", AutoencoderKLConfig),
        ("sdxl_full.vae", AutoencoderKLConfig),
        ("clip_l_tiny", CLIPTextConfig),
        ("clip_g_tiny", CLIPTextConfig),
        ("sdxl_full.text_encoder", CLIPTextConfig),
        ("sdxl_full.text_encoder_2", CLIPTextConfig),
    ],
)
def test_published_configurations_are_taken(name: str, config: Any) -> None:
    assert config.from_dict(golden(name)) == config.from_dict(golden(name))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "gelu"),
        ("addition_embed_type", "text"),
        ("addition_embed_type", None),
        ("attention_type", "gated"),
        ("center_input_sample", True),
        ("class_embed_type", "timestep"),
        ("class_embeddings_concat", True),
        ("conv_in_kernel", 5),
        ("conv_out_kernel", 1),
        ("cross_attention_norm", "layer_norm"),
        ("down_block_types", ["DownBlock3D", "CrossAttnDownBlock3D", "AttnDownBlock2D"]),
        ("down_block_types", ["DownBlock3D", "CrossAttnDownBlock3D"]),
        ("downsample_padding", 0),
        ("dual_cross_attention", True),
        ("encoder_hid_dim", 1024),
        ("encoder_hid_dim_type", "ip_image_proj"),
        ("flip_sin_to_cos", False),
        ("freq_shift", 1),
        ("mid_block_only_cross_attention", True),
        ("mid_block_scale_factor", 2),
        ("mid_block_type", "UNetMidBlock2D"),
        ("mid_block_type", None),
        ("num_attention_heads", 8),
        ("num_class_embeds", 10),
        ("only_cross_attention", True),
        ("only_cross_attention", [False, True, False]),
        ("resnet_out_scale_factor", 0.7),
        ("resnet_skip_time_act", True),
        ("resnet_time_scale_shift", "scale_shift"),
        ("reverse_transformer_layers_per_block", [3, 2, 1]),
        ("time_cond_proj_dim", 256),
        ("time_embedding_act_fn", "silu"),
        ("time_embedding_dim", 64),
        ("time_embedding_type", "fourier"),
        ("timestep_post_act", "silu"),
        ("transformer_layers_per_block", [1, 2]),
        ("transformer_layers_per_block", [1, 2, -1]),
        ("transformer_layers_per_block", [1, 2, [3, 3]]),
        ("up_block_types", ["CrossAttnUpBlock3D", "UpBlock3D", "UpBlock3D"]),
        ("use_linear_projection", False),
        ("attention_head_dim", [2, 4]),
        ("attention_head_dim", [2, 4, 7]),
        ("norm_num_groups", 24),
        ("a_key_of_tomorrow", 3),
    ],
)
def test_unsupported_unet_values_name_the_key(key: str, value: Any) -> None:
    with pytest.raises(HotshotError, match=rf"^unet/config\.json: .*{key}"):
        UNet3DConfig.from_dict({**UNET, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("act_fn", "gelu"),
        ("down_block_types", ["AttnDownEncoderBlock2D"] * 4),
        ("up_block_types", ["UpDecoderBlock2D"] * 3),
        ("latents_mean", [0.0] * 4),
        ("latents_std", [1.0] * 4),
        ("mid_block_add_attention", False),
        ("norm_num_groups", 24),
        ("shift_factor", 0.1),
        ("use_quant_conv", False),
        ("use_post_quant_conv", False),
        ("a_key_of_tomorrow", 3),
    ],
)
def test_unsupported_vae_values_name_the_key(key: str, value: Any) -> None:
    with pytest.raises(HotshotError, match=rf"^vae/config\.json: .*{key}"):
        AutoencoderKLConfig.from_dict({**VAE, key: value})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("hidden_act", "relu"),
        ("model_type", "t5"),
        ("num_attention_heads", 7),
        ("position_embedding_type", "relative_key"),
        ("a_key_of_tomorrow", 3),
    ],
)
def test_unsupported_text_encoder_values_name_the_key(key: str, value: Any) -> None:
    with pytest.raises(HotshotError, match=rf"^text_encoder/config\.json: .*{key}"):
        CLIPTextConfig.from_dict({**TEXT, key: value})


@pytest.mark.parametrize("architecture", ["CLIPModel", "T5EncoderModel", None])
def test_other_text_models_are_refused(architecture: str | None) -> None:
    values = {key: value for key, value in TEXT.items() if key != "_class_name"}
    values["architectures"] = [architecture] if architecture else None
    with pytest.raises(HotshotError, match="architectures"):
        CLIPTextConfig.from_dict(values)


@pytest.mark.parametrize(
    ("config", "values", "key"),
    [
        (UNet3DConfig, UNET, "block_out_channels"),
        (UNet3DConfig, UNET, "cross_attention_dim"),
        (UNet3DConfig, UNET, "projection_class_embeddings_input_dim"),
        (AutoencoderKLConfig, VAE, "block_out_channels"),
        (CLIPTextConfig, TEXT, "hidden_size"),
    ],
)
def test_missing_keys_are_named(config: Any, values: dict[str, Any], key: str) -> None:
    incomplete = {name: value for name, value in values.items() if name != key}
    with pytest.raises(HotshotError, match=rf"missing {key}"):
        config.from_dict(incomplete)


def test_message_names_the_file_that_it_was_given() -> None:
    with pytest.raises(HotshotError, match=r"^base/unet/config\.json: freq_shift = 1 "):
        UNet3DConfig.from_dict({**UNET, "freq_shift": 1}, "base/unet/config.json")


def test_one_value_stands_for_every_level() -> None:
    one = UNet3DConfig.from_dict(
        {**UNET, "attention_head_dim": 4, "transformer_layers_per_block": 2}
    )
    each = UNet3DConfig.from_dict(
        {**UNET, "attention_head_dim": [4, 4, 4], "transformer_layers_per_block": [2, 2, 2]}
    )
    assert one.levels() == each.levels()


@pytest.mark.parametrize("key", ["upcast_attention", "dropout", "addition_embed_type_num_heads"])
def test_keys_without_effect_are_taken(key: str) -> None:
    assert UNet3DConfig.from_dict({**UNET, key: 1}) == UNet3DConfig.from_dict(UNET)
