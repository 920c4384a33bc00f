"""Single files in every spelling give the tensors of the folder bit by bit."""

import dataclasses

import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils
from sdxl_tiny import (
    COMPONENTS,
    HEADS,
    UNET_ALONE,
    as_source,
    config,
    contents,
    state_dict,
    write,
)

from hotshot_jax.convert.builders import model_shapes
from hotshot_jax.convert.formats.ldm_names import PREFIXES
from hotshot_jax.convert.formats.single_file import open_single_file
from hotshot_jax.convert.formats.temporal_layers import temporal_source, with_temporal_layers
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.convert.tensors.tensor_source import TensorSource
from hotshot_jax.errors import HotshotError
from tests.single_file_writer import to_single_file


@pytest.mark.parametrize("name", COMPONENTS)
def test_to_single_file_and_back_is_bit_equal(name, components, single):
    there, back = contents(components[name]), contents(single.component(name).tensors)
    assert there.keys() == back.keys()
    for key, each in there.items():
        assert each.dtype == back[key].dtype
        assert each.tobytes() == back[key].tobytes(), key
        assert single.component(name).tensors.shape(key) == each.shape


def test_diffusers_own_conversion_agrees(tensors, single):
    checkpoint = {name: torch.tensor(each.astype(np.float32)) for name, each in tensors.items()}
    converted = {
        "unet": single_file_utils.convert_ldm_unet_checkpoint(dict(checkpoint), config("unet")),
        "vae": single_file_utils.convert_ldm_vae_checkpoint(dict(checkpoint), config("vae")),
        "text_encoder": single_file_utils.convert_ldm_clip_checkpoint(dict(checkpoint)),
        "text_encoder_2": single_file_utils.convert_open_clip_checkpoint(
            None, dict(checkpoint), prefix=PREFIXES["text_encoder_2"]
        ),
    }
    for name, theirs in converted.items():
        ours = single.component(name).tensors
        assert set(ours.names) == set(theirs), name
        for key, each in theirs.items():
            np.testing.assert_array_equal(
                ours.read(key).astype(np.float32), each.numpy(), err_msg=key
            )


def test_old_spelling_of_the_projection(tmp_path, tensors, single):
    """As a linear layer's weight it is not transposed."""
    key = PREFIXES["text_encoder_2"] + "text_projection"
    expected = single.component("text_encoder_2").tensors.read("text_projection.weight")
    for spelling in (f"{key}.weight", f"{key}.weight.weight"):
        changed = dict(tensors)
        changed[spelling] = changed.pop(key).T
        source = open_single_file(write(tmp_path, changed), HEADS).component("text_encoder_2")
        np.testing.assert_array_equal(source.tensors.read("text_projection.weight"), expected)


def test_extra_tensors_are_ignored_and_named(tmp_path, tensors):
    extra = {
        "model_ema.decay": np.zeros(1, np.float32),
        "denoiser.sigmas": np.zeros(3, np.float32),
        PREFIXES["text_encoder"] + "text_model.embeddings.position_ids": np.arange(77)[None],
        PREFIXES["text_encoder_2"] + "logit_scale": np.zeros(1, np.float32),
    }
    opened = open_single_file(write(tmp_path, tensors | extra), HEADS)
    assert len(opened.notes) == 1
    assert "model_ema (1)" in opened.notes[0] and "denoiser (1)" in opened.notes[0]
    assert "text_model.embeddings.position_ids" not in opened.component("text_encoder").tensors


def test_unet_alone_in_three_spellings(tmp_path, components, tensors):
    prefix = PREFIXES["unet"]
    ldm = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    bare = {name.removeprefix(prefix): each for name, each in ldm.items()}
    expected = contents(components["unet"])
    with_temporal = {**expected, "down_blocks.0.temporal_attentions.0.norm.weight": np.ones(32)}
    for spelling in (ldm, bare, expected, with_temporal):
        with pytest.raises(HotshotError, match=r"addition_time_embed_dim .*config\.json"):
            open_single_file(write(tmp_path, spelling))
        opened = open_single_file(write(tmp_path, spelling), UNET_ALONE)
        assert list(opened.components) == ["unet"]
        got = contents(opened.component("unet").tensors)
        assert got.keys() == expected.keys()
        assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())
        with pytest.raises(HotshotError, match=r"holds no text encoder, only UNet; .*`base`"):
            opened.component("text_encoder")


def old_attention(tensors):
    """The names that diffusers gave the VAE's attention before 0.17, and its shapes."""
    roles = {
        ".to_q.": ".query.",
        ".to_k.": ".key.",
        ".to_v.": ".value.",
        ".to_out.0.": ".proj_attn.",
    }
    old = {}
    for name, each in tensors.items():
        for new, role in roles.items():
            name = name.replace(new, role)
        old[name] = each
    assert len(old.keys() - tensors.keys()) == 16
    return old


def test_vae_with_former_names_and_its_losses(tmp_path, components):
    expected = contents(components["vae"])
    losses = {
        "loss.logvar": np.zeros((), np.float32),
        "loss.discriminator.main.3.num_batches_tracked": np.zeros((), np.int64),
    }
    for prefix in ("", "vae.", "first_stage_model."):
        tensors = {f"{prefix}{k}": v for k, v in (old_attention(expected) | losses).items()}
        got = contents(open_single_file(write(tmp_path, tensors)).component("vae").tensors)
        assert got.keys() == expected.keys()
        assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())


def test_first_encoder_in_current_transformers_names(tmp_path, components, tensors):
    prefix = PREFIXES["text_encoder"]
    flat = {name.replace(f"{prefix}text_model.", prefix): each for name, each in tensors.items()}
    assert flat.keys() != tensors.keys()
    spare = {f"{prefix}text_projection.weight": np.zeros((24, 24), np.float32)}
    opened = open_single_file(write(tmp_path, flat | spare), HEADS)
    expected = contents(components["text_encoder"])
    got = contents(opened.component("text_encoder").tensors)
    assert got.keys() == expected.keys()
    assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())


def test_vae_alone_in_four_spellings(tmp_path, components, tensors):
    prefix = PREFIXES["vae"]
    ldm = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    bare = {name.removeprefix(prefix): each for name, each in ldm.items()}
    other = {f"vae.{name}": each for name, each in bare.items()}
    expected = contents(components["vae"])
    for spelling in (ldm, bare, other, expected):
        opened = open_single_file(write(tmp_path, spelling))
        got = contents(opened.component("vae").tensors)
        assert opened.component("vae").config["scaling_factor"] == 0.13025
        assert got.keys() == expected.keys()
        assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())
        with pytest.raises(HotshotError, match="`vae`"):
            opened.component("unet")


@pytest.mark.parametrize(
    ("name", "upcast"),
    [
        ("sdxl_vae.safetensors", True),
        ("sdXL_v10VAEFix.safetensors", True),
        ("fp16.safetensors", True),
        ("sdxl_vae_fp16_fix.safetensors", False),
        ("sdxl.vae.FP16-fix.safetensors", False),
        ("models--madebyollin--sdxl-vae-fp16-fix/snapshots/1/sdxl_vae.safetensors", False),
    ],
)
def test_a_vae_made_for_half_precision_is_known_by_its_name(
    tmp_path, components, tensors, name, upcast
):
    stored = {key: each for key, each in tensors.items() if key.startswith(PREFIXES["vae"])}
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    written = write(tmp_path, stored)
    renamed = TensorSource([written[key] for key in written], path)
    assert open_single_file(renamed).component("vae").config["force_upcast"] is upcast


def test_half_a_fused_matrix_cannot_be_written(components):
    encoder = components["text_encoder_2"]
    part = encoder.renamed(lambda name: None if ".0.self_attn.k_proj" in name else name)
    with pytest.raises(HotshotError, match="query, key and value"):
        to_single_file({"text_encoder_2": part})


@pytest.mark.parametrize("name", COMPONENTS)
def test_models_of_file_and_folder_have_the_same_parameters(tmp_path, components, single, name):
    """Embeddings, latents and pixels follow from parameters and configuration alone."""
    component = single.component(name)
    both = [component, dataclasses.replace(component, tensors=components[name])]
    if name == "unet":
        unet = as_source(state_dict("unet"), tmp_path / "unet.safetensors")
        shapes = model_shapes(name, component.config, where="unet")
        temporal = temporal_source(unet, shapes)
        both = [
            dataclasses.replace(each, tensors=with_temporal_layers(each.tensors, temporal))
            for each in both
        ]
    first, second = (
        flat_parameters(prepare_component(each, dtype=np.float32).load()) for each in both
    )
    assert first.keys() == second.keys()
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=str(path))
