"""Each tensor's name in a single file."""

import pytest
from sdxl_tiny import COMPONENTS, spatial, state_dict

from hotshot_jax.convert.formats import ldm_names
from hotshot_jax.convert.formats.ldm_names import TABLES


def test_file_has_the_detector_key_of_a_full_model(tmp_path):
    names = {f"text_model.encoder.layers.9.mlp.fc2.{leaf}" for leaf in ("weight", "bias")}
    keys = [place.key for place in TABLES["text_encoder_2"](names).values()]
    assert "transformer.resblocks.9.mlp.c_proj.bias" in keys


def test_tables_cover_every_tensor_once():
    for name in COMPONENTS:
        names = list(spatial(state_dict(name)))
        table = TABLES[name](names)
        assert list(table) == names
        places = [(place.key, place.third) for place in table.values()]
        assert len(set(places)) == len(places)


@pytest.mark.parametrize(
    ("component", "name", "key"),
    [
        ("unet", "up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.2.conv.weight"),
        ("unet", "up_blocks.1.upsamplers.0.conv.bias", "output_blocks.5.2.conv.bias"),
        ("unet", "down_blocks.0.downsamplers.0.conv.weight", "input_blocks.3.0.op.weight"),
        (
            "unet",
            "up_blocks.2.resnets.0.conv_shortcut.bias",
            "output_blocks.6.0.skip_connection.bias",
        ),
        ("unet", "mid_block.resnets.1.time_emb_proj.bias", "middle_block.2.emb_layers.1.bias"),
        ("unet", "add_embedding.linear_2.weight", "label_emb.0.2.weight"),
        ("vae", "decoder.up_blocks.0.upsamplers.0.conv.bias", "decoder.up.3.upsample.conv.bias"),
        ("vae", "encoder.mid_block.resnets.1.norm1.bias", "encoder.mid.block_2.norm1.bias"),
        ("vae", "encoder.mid_block.attentions.0.to_out.0.bias", "encoder.mid.attn_1.proj_out.bias"),
        (
            "text_encoder_2",
            "text_model.encoder.layers.1.self_attn.k_proj.bias",
            "transformer.resblocks.1.attn.in_proj_bias",
        ),
        (
            "text_encoder_2",
            "text_model.embeddings.position_embedding.weight",
            "positional_embedding",
        ),
    ],
)
def test_published_keys(component, name, key):
    assert TABLES[component](list(spatial(state_dict(component))))[name].key == key


def test_a_level_without_attention_has_its_upsampler_second():
    names = [f"up_blocks.0.{part}" for part in ("resnets.0", "upsamplers.0.conv")]
    modules = ldm_names.unet_modules(
        ["down_blocks.0.resnets.0.conv1", f"{names[0]}.conv1", names[1]]
    )
    assert modules[names[1]] == "output_blocks.1.1.conv"


def test_unknown_module_has_no_place():
    with pytest.raises(ValueError, match="no place"):
        ldm_names.unet_modules(["down_blocks.0.adapters.0"])
