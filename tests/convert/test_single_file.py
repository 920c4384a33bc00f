import dataclasses
import json
import warnings

import ml_dtypes
import numpy as np
import pytest
import torch
from diffusers.loaders import single_file_utils
from sdxl_tiny import GOLDEN, as_source, config, spatial, state_dict

from hotshot_jax.convert.formats import ldm_names
from hotshot_jax.convert.formats.ldm_names import PREFIXES, TABLES
from hotshot_jax.convert.formats.single_file import open_single_file
from hotshot_jax.convert.formats.single_file_config import scheduler_config
from hotshot_jax.convert.formats.temporal_layers import temporal_source, with_temporal_layers
from hotshot_jax.convert.model_shapes import model_shapes
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.errors import HotshotError
from tests.single_file_writer import to_single_file

COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "vae")
# Head counts do not follow from shapes.
CONFIGS = {
    "unet": {"attention_head_dim": [2, 4, 8]},
    "text_encoder": {"num_attention_heads": 3},
    "text_encoder_2": {"num_attention_heads": 5},
}
# Without text encoders nothing says how wide the pooled text is, unless it is SDXL's.
UNET_ALONE = {"unet": {**CONFIGS["unet"], "addition_time_embed_dim": 8}}


def contents(source: TensorSource) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(source.read(name)) for name in source.names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> dict[str, TensorSource]:
    """A tiny SDXL under diffusers' names; one component in each storage type."""
    path = tmp_path_factory.mktemp("folder")
    types = dict(
        zip(COMPONENTS, (np.float16, np.float32, ml_dtypes.bfloat16, np.float32), strict=True)
    )
    return {
        name: as_source(
            {key: each.astype(types[name]) for key, each in spatial(state_dict(name)).items()},
            path / f"{name}.safetensors",
        )
        for name in COMPONENTS
    }


@pytest.fixture(scope="module")
def tensors(folder) -> dict[str, np.ndarray]:
    """The tensors of the single file."""
    return contents(to_single_file(folder))


@pytest.fixture(scope="module")
def single(tensors, tmp_path_factory):
    path = tmp_path_factory.mktemp("single") / "model.safetensors"
    return open_single_file(as_source(tensors, path), CONFIGS)


def write(tmp_path, tensors) -> TensorSource:
    return as_source(tensors, tmp_path / "model.safetensors")


@pytest.mark.parametrize("name", COMPONENTS)
def test_to_single_file_and_back_is_bit_equal(name, folder, single):
    there, back = contents(folder[name]), contents(single.component(name).tensors)
    assert there.keys() == back.keys()
    for key, each in there.items():
        assert each.dtype == back[key].dtype
        assert each.tobytes() == back[key].tobytes(), key
        assert single.component(name).tensors.shape(key) == each.shape


def test_file_has_the_detector_key_of_a_full_model(tmp_path):
    names = {f"text_model.encoder.layers.9.mlp.fc2.{leaf}" for leaf in ("weight", "bias")}
    keys = [place.key for place in TABLES["text_encoder_2"](names).values()]
    assert "transformer.resblocks.9.mlp.c_proj.bias" in keys


@pytest.mark.parametrize("name", COMPONENTS)
def test_derived_configuration_is_the_models_own(name, single):
    derived, given = dict(single.component(name).config), config(name)
    same = set(derived) & set(given) - {"_class_name", "sample_size", "eos_token_id"}
    assert len(same) >= 9
    for key in same:
        ours = [str(each).replace("2D", "3D") for each in np.atleast_1d(derived[key])]
        assert ours == [str(each).replace("2D", "3D") for each in np.atleast_1d(given[key])], key


@pytest.mark.parametrize(
    ("component", "name"),
    [
        ("unet", "unet2d"),
        ("text_encoder", "text_encoder"),
        ("text_encoder_2", "text_encoder_2"),
        ("vae", "vae"),
    ],
)
def test_full_size_shapes_give_sdxls_configuration(tmp_path, component, name):
    """From shapes alone: nothing of a full-size model is stored."""
    models = GOLDEN / "models"
    shapes = json.loads((models / f"sdxl_full.{name}.shapes.json").read_text())
    expected = json.loads((models / f"sdxl_full.{name}.config.json").read_text())
    template = as_source({"x": np.zeros(1, np.float32)}, tmp_path / "x.safetensors")
    named = {
        key: template["x"].mapped(key, tuple(entry["shape"]), lambda x: x)
        for key, entry in shapes.items()
        if not entry.get("buffer")
    }
    stored = to_single_file({component: TensorSource(named.values(), tmp_path)})
    found = open_single_file(stored).component(component)
    assert set(found.tensors) == set(named)
    assert all(found.tensors.shape(key) == each.shape for key, each in named.items())
    # The published 2 is an error that means the largest id, the last of the vocabulary.
    same = (found.config.keys() & expected.keys()) - {"eos_token_id"}
    assert len(same) > 8
    for key in same:
        assert found.config[key] == expected[key], key


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


def test_old_spelling_of_the_projection(tmp_path, tensors, single):
    """As a linear layer's weight it is not transposed."""
    key = PREFIXES["text_encoder_2"] + "text_projection"
    expected = single.component("text_encoder_2").tensors.read("text_projection.weight")
    for spelling in (f"{key}.weight", f"{key}.weight.weight"):
        changed = dict(tensors)
        changed[spelling] = changed.pop(key).T
        source = open_single_file(write(tmp_path, changed), CONFIGS).component("text_encoder_2")
        np.testing.assert_array_equal(source.tensors.read("text_projection.weight"), expected)


def test_extra_tensors_are_ignored_and_named(tmp_path, tensors):
    extra = {
        "model_ema.decay": np.zeros(1, np.float32),
        "denoiser.sigmas": np.zeros(3, np.float32),
        PREFIXES["text_encoder"] + "text_model.embeddings.position_ids": np.arange(77)[None],
        PREFIXES["text_encoder_2"] + "logit_scale": np.zeros(1, np.float32),
    }
    opened = open_single_file(write(tmp_path, tensors | extra), CONFIGS)
    assert len(opened.notes) == 1
    assert "model_ema (1)" in opened.notes[0] and "denoiser (1)" in opened.notes[0]
    assert "text_model.embeddings.position_ids" not in opened.component("text_encoder").tensors


@pytest.mark.parametrize(
    ("markers", "expected", "note"),
    [
        ((), {"prediction_type": "epsilon", "timestep_spacing": "leading"}, None),
        (("v_pred",), {"prediction_type": "v_prediction"}, "predicts v_prediction"),
        (
            ("v_pred", "ztsnr"),
            {
                "prediction_type": "v_prediction",
                "rescale_betas_zero_snr": True,
                "timestep_spacing": "trailing",
            },
            "zero terminal SNR",
        ),
        (("ztsnr",), {"prediction_type": "epsilon"}, "ignored"),
    ],
)
def test_markers_switch_the_scheduler_and_say_so(tmp_path, markers, expected, note):
    empty = {name: np.zeros(0, np.float32) for name in (*markers, "model.diffusion_model.x")}
    scheduler, notes = scheduler_config(write(tmp_path, empty))
    assert expected.items() <= scheduler.items()
    assert len(notes) == (note is not None)
    assert note is None or note in notes[0]


@pytest.mark.parametrize(
    ("header", "markers", "expected"),
    [
        ({"modelspec.prediction_type": "v"}, (), ("v_prediction", False)),
        ({"modelspec.prediction_type": "V-Prediction"}, (), ("v_prediction", False)),
        ({"modelspec.prediction_type": "epsilon"}, (), ("epsilon", False)),
        ({"modelspec.prediction_type": "epsilon"}, ("v_pred",), ("v_prediction", False)),
        ({"modelspec.prediction_type": "v"}, ("ztsnr",), ("v_prediction", True)),
        ({"ss_v_parameterization": "True"}, (), ("v_prediction", False)),
        (
            {"modelspec.prediction_type": "v", "ss_zero_terminal_snr": "True"},
            (),
            ("v_prediction", True),
        ),
        ({"modelspec.prediction_type": "sample"}, (), ("sample", False)),
        ({"modelspec.prediction_type": "rectified_flow"}, (), ("epsilon", False)),
        (
            {"modelspec.prediction_type": "velocity", "modelspec.noise_process": "flow"},
            (),
            ("epsilon", False),
        ),
    ],
)
def test_headers_switch_the_scheduler_and_say_so(tmp_path, header, markers, expected):
    empty = {name: np.zeros(0, np.float32) for name in (*markers, "model.diffusion_model.x")}
    plain = write(tmp_path, empty)
    scheduler, notes = scheduler_config(TensorSource(plain.values(), plain.path, header))
    found = scheduler["prediction_type"], scheduler.get("rescale_betas_zero_snr", False)
    assert found == expected
    assert bool(notes) == (header != {"modelspec.prediction_type": "epsilon"} or bool(markers))


def test_edm_markers(tmp_path, tensors):
    markers = {
        "edm_vpred.sigma_max": np.float32([120.0]).reshape(()),
        "edm_vpred.sigma_min": np.float32([0.002]).reshape(()),
    }
    opened = open_single_file(write(tmp_path, tensors | markers), CONFIGS)
    assert opened.scheduler["_class_name"] == "EDMEulerScheduler"
    assert opened.scheduler["sigma_max"] == 120.0
    assert "EDM" in opened.notes[0]


def test_unet_alone_in_three_spellings(tmp_path, folder, tensors):
    prefix = PREFIXES["unet"]
    ldm = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    bare = {name.removeprefix(prefix): each for name, each in ldm.items()}
    expected = contents(folder["unet"])
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


def test_vae_with_former_names_and_its_losses(tmp_path, folder):
    expected = contents(folder["vae"])
    losses = {
        "loss.logvar": np.zeros((), np.float32),
        "loss.discriminator.main.3.num_batches_tracked": np.zeros((), np.int64),
    }
    for prefix in ("", "vae.", "first_stage_model."):
        tensors = {f"{prefix}{k}": v for k, v in (old_attention(expected) | losses).items()}
        got = contents(open_single_file(write(tmp_path, tensors)).component("vae").tensors)
        assert got.keys() == expected.keys()
        assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())


def test_first_encoder_in_current_transformers_names(tmp_path, folder, tensors):
    prefix = PREFIXES["text_encoder"]
    flat = {name.replace(f"{prefix}text_model.", prefix): each for name, each in tensors.items()}
    assert flat.keys() != tensors.keys()
    spare = {f"{prefix}text_projection.weight": np.zeros((24, 24), np.float32)}
    opened = open_single_file(write(tmp_path, flat | spare), CONFIGS)
    expected = contents(folder["text_encoder"])
    got = contents(opened.component("text_encoder").tensors)
    assert got.keys() == expected.keys()
    assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())


def test_vae_alone_in_four_spellings(tmp_path, folder, tensors):
    prefix = PREFIXES["vae"]
    ldm = {name: each for name, each in tensors.items() if name.startswith(prefix)}
    bare = {name.removeprefix(prefix): each for name, each in ldm.items()}
    other = {f"vae.{name}": each for name, each in bare.items()}
    expected = contents(folder["vae"])
    for spelling in (ldm, bare, other, expected):
        opened = open_single_file(write(tmp_path, spelling))
        got = contents(opened.component("vae").tensors)
        assert opened.component("vae").config["scaling_factor"] == 0.13025
        assert got.keys() == expected.keys()
        assert all(got[key].tobytes() == each.tobytes() for key, each in expected.items())
        with pytest.raises(HotshotError, match="`vae`"):
            opened.component("unet")


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
    from safetensors.torch import save_file

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
        open_single_file(write(tmp_path, pruned), CONFIGS)


def test_half_a_fused_matrix_cannot_be_written(folder):
    names = [name for name in folder["text_encoder_2"].names if ".0.self_attn.k_proj" not in name]
    part = folder["text_encoder_2"].renamed(lambda name: name if name in names else None)
    with pytest.raises(HotshotError, match="query, key and value"):
        to_single_file({"text_encoder_2": part})


@pytest.mark.parametrize("name", COMPONENTS)
def test_models_of_file_and_folder_have_the_same_parameters(tmp_path, folder, single, name):
    """Embeddings, latents and pixels follow from parameters and configuration alone."""
    component = single.component(name)
    both = [component, dataclasses.replace(component, tensors=folder[name])]
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
