"""LoRA files that are refused, or read in part: what is said of each."""

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
    names,
    normal,
    write,
)

from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import read_lora


def test_the_same_module_twice_is_refused(tmp_path):
    tensors = factors(KOHYA) | factors(f"unet.{QUERY}", style="peft")
    with pytest.raises(HotshotError, match="twice"):
        read_lora(write(tmp_path / "a.safetensors", tensors), names())


def test_unmatched_keys_are_refused_unless_allowed(tmp_path):
    other = {f"lora_unet_nothing_{i}.lora_up.weight": UP for i in range(7)}
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | other)
    with pytest.raises(
        HotshotError, match=r"7 of its 9 keys fit nowhere.*\n.*--lora_allow_partial"
    ):
        read_lora(source, names())
    close(difference(source, allow_partial=True), PRODUCT)
    report = read_lora(source, names(), allow_partial=True).report
    assert len(report.unmatched) == 7
    assert "7 keys unmatched: lora_unet_nothing_0.lora_up.weight" in str(report)


def test_no_match_is_refused_even_if_parts_are_allowed(tmp_path):
    source = write(tmp_path / "a.safetensors", factors("lora_unet_nothing"))
    with pytest.raises(HotshotError, match="none of its 2 keys"):
        read_lora(source, names(), allow_partial=True)


def test_bundled_embeddings_are_named(tmp_path):
    other = {"bundle_emb.style.clip_l": normal(1, 24)}
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | other)
    assert "--embedding" in str(read_lora(source, names()).report)


NAN = np.full((3, 64), np.nan, np.float32)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({f"{KOHYA}.lora_down.weight": DOWN}, "no up"),
        ({f"{KOHYA}.lora_up.weight": UP}, "no down"),
        ({f"{KOHYA}.alpha": np.float32(1)}, "nothing but alpha"),
        ({f"{KOHYA}.dora_scale": np.ones((64, 1), "f4")}, "magnitude without its factors"),
        (factors(KOHYA, down=NAN), "192 of 192 values are NaN"),
        (factors(KOHYA, up=UP * np.float32(np.inf)), "NaN or infinite"),
        (factors(KOHYA) | {f"{KOHYA}.alpha": np.float32(np.nan)}, "NaN"),
        (factors(KOHYA) | {f"{KOHYA}.alpha": np.ones(2, "f4")}, "alpha has 2 values"),
        (factors(KOHYA, down=normal(4, 64)), "ranks 3 and 4"),
        (factors(KOHYA, down=normal(0, 64), up=normal(64, 0)), "rank is 0"),
        (factors(KOHYA, down=normal(3, 63)), r"down \[3, 63\] do not fit its weight \[64, 64\]"),
        (factors(KOHYA, up=normal(65, 3)), r"up \[65, 3\]"),
        (factors(KOHYA, down=DOWN.astype(np.int8)), "int8"),
        (factors(KOHYA) | {f"{KOHYA}.lora_mid.weight": normal(3, 3, 3, 3)}, "mid"),
        (factors(KOHYA) | {f"{KOHYA}.dora_scale": np.ones((63, 1), "f4")}, "magnitude"),
        ({f"{KOHYA}.hada_w1_a": UP, f"{KOHYA}.hada_w1_b": DOWN}, "no hada_w2_a"),
        (
            {f"{KOHYA}.hada_w{i}_{j}": normal(3, 64) for i in (1, 2) for j in "ab"},
            "do not fit its weight",
        ),
        ({f"{KOHYA}.lokr_w1": normal(4, 8)}, "no lokr_w2_a"),
        ({f"{KOHYA}.lokr_w1": normal(4, 8), f"{KOHYA}.lokr_w2": normal(4, 8)}, "do not fit"),
        ({f"{KOHYA}.diff": normal(64, 63)}, r"diff has shape \[64, 63\]"),
        ({f"{KOHYA}.diff_b": normal(64)}, "has no bias"),
    ],
)
def test_damaged_modules(tmp_path, tensors, message):
    source = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(HotshotError, match=message):
        read_lora(source, names())


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (factors("lora_te_text_model_encoder_layers_0_mlp_fc1"), {}, "Stable Diffusion 1.x"),
        (
            factors(KOHYA.replace("attn1_to_q", "attn2_to_k"), down=normal(3, 768)),
            {},
            "Stable Diffusion 1.x",
        ),
        (
            factors(
                f"unet.{QUERY.replace('attn1.to_q', 'attn2.to_v')}", normal(3, 1024), style="peft"
            ),
            {},
            "Stable Diffusion 2.x",
        ),
        (factors("lora_unet_double_blocks_0_img_attn_proj"), {}, "Flux"),
        (factors("transformer.single_transformer_blocks.0.attn.to_q", style="peft"), {}, "Flux"),
        (factors("lora_unet_joint_blocks_0_x_block_attn_proj"), {}, "Stable Diffusion 3"),
        (factors("transformer.transformer_blocks.0.attn.to_q", style="peft"), {}, "Diffusion 3"),
        (
            factors("down_blocks.0.motion_modules.0.temporal_transformer.proj_in", style="peft"),
            {},
            "AnimateDiff",
        ),
        (factors(KOHYA), {"ss_base_model_version": "sd_v1"}, "Stable Diffusion 1.x"),
        (factors(KOHYA), {"modelspec.architecture": "flux-1-dev/lora"}, "Flux"),
        (
            factors(KOHYA),
            {"modelspec.architecture": "stable-diffusion-xl-v1-refiner/lora"},
            "refiner",
        ),
    ],
)
def test_other_families_are_named(tmp_path, tensors, metadata, message):
    source = write(tmp_path / "a.safetensors", tensors, **metadata)
    with pytest.raises(HotshotError, match=f"was trained for .*{message}"):
        read_lora(source, names(), allow_partial=True)


@pytest.mark.parametrize(
    "metadata",
    [
        {"ss_base_model_version": "sdxl_base_v1-0"},
        {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"},
    ],
)
def test_sdxls_own_headers_are_accepted(tmp_path, metadata):
    assert read_lora(write(tmp_path / "a.safetensors", factors(KOHYA), **metadata), names())


@pytest.mark.parametrize(
    ("key", "method"),
    [
        ("oft_blocks", "OFT"),
        ("oft_R.default.weight", "OFT"),
        ("boft_R", "BOFT"),
        ("rescale", "OFT or BOFT"),
        ("a1.weight", "GLoRA"),
        ("on_input", "IA3"),
        ("ia3_l", "IA3"),
        ("vera_lambda_b", "VeRA"),
    ],
)
def test_other_methods_are_named(tmp_path, key, method):
    source = write(tmp_path / "a.safetensors", {f"{KOHYA}.{key}": normal(2, 2)})
    with pytest.raises(HotshotError, match=f"uses {method}"):
        read_lora(source, names(), allow_partial=True)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"unet.r": 4, "unet.lora_alpha": 1}', "has rank 3.*says 4"),
        ('{"unet.r": 3, "unet.lora_alpha": "x"}', "alpha = 'x' is not a number"),
        ('{"unet.peft_type": "OFT"}', "uses OFT"),
    ],
)
def test_bad_headers(tmp_path, metadata, message):
    tensors = factors(f"unet.{QUERY}", style="peft")
    source = write(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=metadata)
    with pytest.raises(HotshotError, match=message):
        read_lora(source, names())
