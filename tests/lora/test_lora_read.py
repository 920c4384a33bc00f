"""Spellings and strengths of LoRA files."""

import json

import numpy as np
import pytest
from lora_cases import (
    DOWN,
    KOHYA,
    PRODUCT,
    QUERY,
    UP,
    close,
    difference,
    factors,
    merge,
    names,
    normal,
    state_dict,
    write,
)

from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import ModuleNames, read_lora
from hotshot_jax.lora.adapter_config import AdapterConfig
from hotshot_jax.lora.names import split_key

OUT = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
CONV = "down_blocks.1.resnets.0.conv1"
NORM = "down_blocks.1.resnets.0.norm1"
TEXT = "text_model.encoder.layers.1.self_attn.q_proj"
TEMPORAL = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.to_q"
ORIGINAL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


@pytest.mark.parametrize(
    ("name", "style"),
    [
        (KOHYA, "kohya"),
        (ORIGINAL, "kohya"),
        ("lycoris_" + QUERY.replace(".", "_"), "kohya"),
        *(
            (f"{prefix}input_blocks.4.1.transformer_blocks.0.attn1.to_q", style)
            for prefix in ("", "unet.", "diffusion_model.", "base_model.model.diffusion_model.")
            for style in ("kohya", "peft")
        ),
        (f"diffusion_model.{QUERY}", "peft"),
        (KOHYA.replace("attn1_to_q", "attn1.to_q"), "kohya"),
        (f"unet.{QUERY}", "peft"),
        (f"unet.{QUERY}", "dotted"),
        (f"base_model.model.unet.{QUERY}", "peft_named"),
        (f"base_model.model.{QUERY}", "peft"),
        (QUERY, "peft"),
        (f"unet.{QUERY.replace('.to_q', '.processor.to_q')}", "peft"),
    ],
)
def test_spellings_of_a_unet_module(tmp_path, name, style):
    source = write(tmp_path / "lora.safetensors", factors(name, style=style))
    close(difference(source), PRODUCT)


@pytest.mark.parametrize("role", ["to_q", "to_k", "to_v", "to_out"])
@pytest.mark.parametrize("prefix", ["unet.", ""])
def test_attention_processors(tmp_path, role, prefix):
    attention = QUERY.removesuffix(".to_q")
    tensors = {
        f"{prefix}{attention}.processor.{role}_lora.down.weight": DOWN,
        f"{prefix}{attention}.processor.{role}_lora.up.weight": UP,
        f"{prefix}{attention}.processor.{role}_lora.alpha": np.float32(6),
    }
    target = f"{attention}.{'to_out.0' if role == 'to_out' else role}.weight"
    close(difference(write(tmp_path / "a.safetensors", tensors), tensor=target), 2 * PRODUCT)


@pytest.mark.parametrize("component", ["text_encoder", "text_encoder_2"])
@pytest.mark.parametrize(
    ("name", "style"),
    [
        ("lora_te{}_text_model_encoder_layers_1_self_attn_q_proj", "kohya"),
        ("{}.text_model.encoder.layers.1.self_attn.q_proj", "peft"),
        ("{}.encoder.layers.1.self_attn.q_proj", "peft"),
        ("{}.text_model.encoder.layers.1.self_attn.q_proj", "text"),
        *(
            (f"{prefix}{clip}{name}encoder.layers.1.self_attn.q_proj", style)
            for prefix, style in (("text_encoders.", "kohya"), ("", "peft"))
            for clip in ("clip_{letter}.transformer.", "clip_{letter}.")
            for name in ("text_model.", "")
            if (prefix, clip) != ("text_encoders.", "clip_{letter}.")
        ),
    ],
)
def test_spellings_of_a_text_encoders_module(tmp_path, component, name, style):
    width = state_dict(component)[f"{TEXT}.weight"].shape[0]
    up, down = normal(width, 2), normal(2, width)
    first = component == "text_encoder"
    number = "1" if first else "2"
    name = name.format(
        number if name.startswith("lora_te") else component, letter="l" if first else "g"
    )
    source = write(tmp_path / "lora.safetensors", factors(name, down, up, style))
    close(difference(source, component, f"{TEXT}.weight"), up.astype(np.float64) @ down)


def test_projection_of_the_second_encoder(tmp_path):
    up, down = normal(48, 2), normal(2, 40)
    source = write(tmp_path / "a.safetensors", factors("lora_te2_text_projection", down, up))
    close(difference(source, "text_encoder_2", "text_projection.weight"), up @ down)


@pytest.mark.parametrize(
    ("name", "style"),
    [(f"unet.{TEMPORAL}", "peft"), ("lora_unet_" + TEMPORAL.replace(".", "_"), "kohya")],
)
def test_temporal_layers(tmp_path, name, style):
    up, down = normal(32, 2), normal(2, 32)
    source = write(tmp_path / "motion.safetensors", factors(name, down, up, style))
    close(difference(source, tensor=f"{TEMPORAL}.weight"), up.astype(np.float64) @ down)


def test_every_module_has_kohyas_two_names_and_no_two_share_one():
    table = names()
    for module in table.modules:
        if module.component == "unet" and "temporal" not in module.name:
            spellings = [name for name in table if table[name].module == module]
            assert sum(name.startswith("lora_unet_") for name in spellings) == 2, module


def test_a_shared_name_is_an_error():
    shapes = {"a_b.c.weight": (1, 1), "a.b_c.weight": (1, 1)}
    with pytest.raises(ValueError, match="means"):
        ModuleNames({"text_encoder": shapes})


@pytest.mark.parametrize(("alpha", "factor"), [(None, 1), (3, 1), (1.5, 0.5), (np.float16(6), 2)])
def test_alpha_over_rank(tmp_path, alpha, factor):
    tensors = factors(KOHYA)
    if alpha is not None:
        tensors[f"{KOHYA}.alpha"] = np.asarray(alpha)
    source = write(tmp_path / "lora.safetensors", tensors)
    close(difference(source), factor * PRODUCT)


def test_an_alpha_of_zero_is_refused(tmp_path):
    tensors = factors(KOHYA) | {f"{KOHYA}.alpha": np.zeros((), np.float32)}
    source = write(tmp_path / "lora.safetensors", tensors)
    with pytest.raises(HotshotError, match=r"lora\.safetensors: alpha of .* is 0"):
        read_lora(source, names())


def test_strength_multiplies(tmp_path):
    close(difference(write(tmp_path / "a.safetensors", factors(KOHYA)), scale=-0.6), -0.6 * PRODUCT)


@pytest.mark.parametrize(
    ("config", "factor"),
    [
        ({"r": 3, "lora_alpha": 6}, 2),
        ({"r": 3, "lora_alpha": 6, "use_rslora": True}, 6 / np.sqrt(3)),
        ({"r": 8, "lora_alpha": 6, "rank_pattern": {"attn1.to_q": 3}}, 2),
        ({"r": 3, "lora_alpha": 1, "alpha_pattern": {r"attn1\.to_[qk]": 9}}, 3),
        ({"r": 3, "lora_alpha": 6, "alpha_pattern": {"ttn1.to_q": 9}}, 2),
        ({"r": 3, "lora_alpha": 6, "peft_type": "LORA"}, 2),
    ],
)
@pytest.mark.parametrize("place", ["header", "json"])
def test_pefts_configuration(tmp_path, config, factor, place):
    tensors = factors(f"unet.{QUERY}", style="peft")
    path = tmp_path / "lora.safetensors"
    if place == "header":
        flat = {f"unet.{key}": value for key, value in config.items()}
        flat |= {"text_encoder.r": 64, "text_encoder.lora_alpha": 1}
        source = write(path, tensors, lora_adapter_metadata=json.dumps(flat))
        close(difference(source), factor * PRODUCT)
    else:
        source = write(path, tensors)
        given = AdapterConfig({"": config}, tmp_path / "adapter_config.json")
        close(difference(source, config=given), factor * PRODUCT)


def test_the_configuration_goes_before_the_files_own_alpha(tmp_path):
    """As in diffusers."""
    tensors = factors(f"unet.{QUERY}", style="peft") | {f"unet.{QUERY}.alpha": np.float32(9)}
    header = json.dumps({"unet.r": 3, "unet.lora_alpha": 6})
    path = tmp_path / "a.safetensors"
    close(difference(write(path, tensors, lora_adapter_metadata=header)), 2 * PRODUCT)
    close(difference(write(path, tensors)), 3 * PRODUCT)


def test_convolution_with_and_without_mid(tmp_path):
    up, mid, down = normal(64, 2, 1, 1), normal(2, 2, 3, 3), normal(2, 32, 3, 3)
    name = "lora_unet_" + CONV.replace(".", "_")
    source = write(tmp_path / "a.safetensors", factors(name, down, up))
    expected = np.einsum("oa,aihw->oihw", up[:, :, 0, 0], down.astype(np.float64))
    close(difference(source, tensor=f"{CONV}.weight"), expected)

    tensors = factors(name, down[:, :, :1, :1], up) | {f"{name}.lora_mid.weight": mid}
    source = write(tmp_path / "b.safetensors", tensors)
    expected = np.einsum(
        "oa,abhw,bi->oihw", up[:, :, 0, 0], mid.astype(np.float64), down[:, :, 0, 0]
    )
    close(difference(source, tensor=f"{CONV}.weight"), expected)


def test_a_matrix_may_be_stored_as_a_pointwise_convolution(tmp_path):
    tensors = factors(KOHYA, DOWN[..., None, None], UP[..., None, None])
    close(difference(write(tmp_path / "a.safetensors", tensors)), PRODUCT)


def test_loha(tmp_path):
    tensors = {
        f"{KOHYA}.hada_w1_a": UP,
        f"{KOHYA}.hada_w1_b": DOWN,
        f"{KOHYA}.hada_w2_a": normal(64, 3, seed=1),
        f"{KOHYA}.hada_w2_b": normal(3, 64, seed=1),
        f"{KOHYA}.alpha": np.float32(6),
    }
    second = tensors[f"{KOHYA}.hada_w2_a"] @ tensors[f"{KOHYA}.hada_w2_b"]
    close(difference(write(tmp_path / "a.safetensors", tensors)), 2 * PRODUCT * second)


@pytest.mark.parametrize(
    ("parts", "factor"),
    [
        # Neither is factored: alpha, whatever it says, has no rank to be divided by.
        ({"lokr_w1": (4, 8), "lokr_w2": (16, 8)}, 1),
        ({"lokr_w1": (4, 8), "lokr_w2_a": (16, 2), "lokr_w2_b": (2, 8)}, 3),
        ({"lokr_w1_a": (4, 3), "lokr_w1_b": (3, 8), "lokr_w2": (16, 8)}, 2),
        (
            {
                "lokr_w1_a": (4, 3),
                "lokr_w1_b": (3, 8),
                "lokr_w2_a": (16, 2),
                "lokr_w2_b": (2, 8),
            },
            2,
        ),
    ],
)
def test_lokr(tmp_path, parts, factor):
    arrays = {name: normal(*shape) for name, shape in parts.items()}
    tensors = {f"{KOHYA}.{name}": each for name, each in arrays.items()}
    tensors[f"{KOHYA}.alpha"] = np.float32(6)
    first, second = (
        arrays[w] if w in arrays else arrays[f"{w}_a"].astype(np.float64) @ arrays[f"{w}_b"]
        for w in ("lokr_w1", "lokr_w2")
    )
    close(difference(write(tmp_path / "a.safetensors", tensors)), factor * np.kron(first, second))


@pytest.mark.parametrize(
    ("name", "shape", "axis"),
    [
        (f"{KOHYA}.dora_scale", (64, 1), 1),
        (f"{KOHYA}.dora_scale", (1, 64), 0),
        (f"{KOHYA}.dora_scale", (64,), 1),
        (f"{KOHYA}.lora_magnitude_vector", (64,), 1),
    ],
)
@pytest.mark.parametrize("scale", [1.0, 0.6])
def test_dora_of_a_square_matrix(tmp_path, name, shape, axis, scale):
    magnitude = np.abs(normal(64)) + 0.5
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | {name: magnitude.reshape(shape)})
    weight = state_dict("unet")[f"{QUERY}.weight"].astype(np.float64)
    changed = weight + scale * PRODUCT
    length = np.expand_dims(magnitude, axis) / np.linalg.norm(changed, axis=axis, keepdims=True)
    close(difference(source, scale=scale), length * changed - weight)


@pytest.mark.parametrize(
    ("part", "shape", "kept"),
    [
        ("dora_scale", (64, 1, 1, 1), 0),
        ("dora_scale", (1, 32, 1, 1), 1),
        ("lora_magnitude_vector", (1, 64, 1, 1), 0),
    ],
)
def test_dora_of_a_convolution(tmp_path, part, shape, kept):
    up, down = normal(64, 2, 1, 1), normal(2, 32, 3, 3)
    name = "lora_unet_" + CONV.replace(".", "_")
    magnitude = np.abs(normal(*shape)) + 0.5
    source = write(
        tmp_path / "a.safetensors", factors(name, down, up) | {f"{name}.{part}": magnitude}
    )
    weight = state_dict("unet")[f"{CONV}.weight"].astype(np.float64)
    changed = weight + np.einsum("oa,aihw->oihw", up[:, :, 0, 0], down)
    others = tuple(axis for axis in range(4) if axis != kept)
    norm = np.sqrt((changed**2).sum(axis=others, keepdims=True))
    expected = magnitude.reshape(norm.shape) * changed / norm - weight
    close(difference(source, tensor=f"{CONV}.weight"), expected)


def test_dora_at_strength_zero_is_off(tmp_path):
    source = write(
        tmp_path / "a.safetensors", factors(KOHYA) | {f"{KOHYA}.dora_scale": np.ones((64, 1), "f4")}
    )
    assert merge(state_dict("unet"), "unet", [(read_lora(source, names()), 0.0)]) == {}


def test_differences_norms_and_biases(tmp_path):
    stem = "lora_unet_" + NORM.replace(".", "_")
    conv = "lora_unet_" + CONV.replace(".", "_")
    tensors = {
        f"{stem}.w_norm": normal(32),
        f"{stem}.b_norm": normal(32, seed=1),
        f"{conv}.diff": normal(64, 32, 3, 3),
        f"{conv}.diff_b": normal(64),
        f"{KOHYA}.set_weight": normal(64, 64),
        **factors(f"unet.{OUT}", style="peft"),
        f"unet.{OUT}.lora_B.bias": normal(64, seed=2),
        f"unet.{OUT}.alpha": np.float32(6),
    }
    lora = read_lora(write(tmp_path / "a.safetensors", tensors), names())
    base = state_dict("unet")
    merged = merge(base, "unet", [(lora, 0.6)])
    for tensor, key in (
        (f"{NORM}.weight", f"{stem}.w_norm"),
        (f"{NORM}.bias", f"{stem}.b_norm"),
        (f"{CONV}.weight", f"{conv}.diff"),
        (f"{CONV}.bias", f"{conv}.diff_b"),
    ):
        close(merged.pop(tensor), base[tensor] + 0.6 * tensors[key])
    weight = base[f"{QUERY}.weight"]
    close(merged.pop(f"{QUERY}.weight"), 0.4 * weight + 0.6 * tensors[f"{KOHYA}.set_weight"])
    close(merged.pop(f"{OUT}.weight"), base[f"{OUT}.weight"] + 1.2 * PRODUCT)
    close(merged.pop(f"{OUT}.bias"), base[f"{OUT}.bias"] + 1.2 * normal(64, seed=2))
    assert not merged


def test_both_names_of_a_module_prefer_the_current(tmp_path):
    other = factors(ORIGINAL, down=normal(3, 64, seed=9))
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | other)
    close(difference(source), PRODUCT)
    assert "1 modules are in it under original and diffusers names" in str(
        read_lora(source, names()).report
    )


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("a.b.lora_A.my-style.weight", ("a.b", "down")),
        ("a.b.lora_magnitude_vector.default.weight", ("a.b", "magnitude")),
        ("a.b.hada_w1_a.default", ("a.b", "hada_w1_a")),
        ("a.self_attn.to_out_lora.up.weight", ("a.self_attn.out_proj", "up")),
        ("a.b.lora_linear_layer.alpha", ("a.b", "alpha")),
        ("a.b.weight", ("a.b", "saved_weight")),
        ("a.b.base_layer.bias", ("a.b", "saved_bias")),
        ("a.b.weights", None),
    ],
)
def test_keys(key, expected):
    assert split_key(key) == expected
