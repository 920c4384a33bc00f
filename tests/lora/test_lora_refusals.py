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

ORIGINAL = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q"


def test_the_same_module_twice_is_refused(tmp_path):
    tensors = factors(KOHYA) | factors(f"unet.{QUERY}", style="peft")
    with pytest.raises(HotshotError, match="twice"):
        read_lora(write(tmp_path / "a.safetensors", tensors), names())


def test_unmatched_keys_are_refused_unless_allowed(tmp_path):
    other = {f"lora_unet_nothing_{i}.lora_up.weight": UP for i in range(7)}
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | other)
    with pytest.raises(
        HotshotError, match=r"7 of its 9 keys fit nowhere.*\n.*`lora_allow_partial`"
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
    assert "`embeddings`" in str(read_lora(source, names()).report)


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
        (
            factors("lora_unet_down_blocks_3_resnets_0_conv1") | factors(KOHYA),
            {"ss_base_model_version": "sd_v1"},
            "Stable Diffusion 1.x",
        ),
        (
            factors(KOHYA, up=normal(32, 3)),
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
    ("metadata", "family"),
    [
        ({"ss_base_model_version": "sd_v1"}, "Stable Diffusion 1.x"),
        ({"ss_v2": "True"}, "Stable Diffusion 2.x"),
        ({"modelspec.architecture": "flux-1-dev/lora"}, "Flux"),
    ],
)
def test_what_fits_is_taken_whatever_its_header_says(tmp_path, metadata, family):
    source = write(tmp_path / "a.safetensors", factors(KOHYA), **metadata)
    close(difference(source), PRODUCT)
    assert f"header says {family}" in str(read_lora(source, names()).report)


def _kind(key: str) -> dict[str, np.ndarray]:
    return {key: normal(2, 2)}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (_kind("lllite_unet_input_blocks_4_1_proj_in.down.0.weight"), "is a ControlNet-LLLite"),
        (_kind("image_proj.proj.weight") | _kind("ip_adapter.1.to_k_ip.weight"), "an IP-Adapter"),
        (_kind("adapter.body.0.resnets.0.block1.weight"), "is a T2I-Adapter"),
        (_kind("body.2.in_conv.weight"), "is a T2I-Adapter"),
        (_kind("control_model.input_blocks.0.0.weight"), "is a ControlNet; .*`controlnets`"),
        (_kind("clip_l") | _kind("clip_g"), "is a textual inversion; .*`embeddings`"),
        (_kind("lora_controlnet") | factors(KOHYA), "is a Control-LoRA"),
    ],
)
def test_what_is_no_lora_is_named(tmp_path, tensors, message):
    source = write(tmp_path / "a.safetensors", tensors)
    with pytest.raises(HotshotError, match=message):
        read_lora(source, names(), allow_partial=True)


MODULE = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"


@pytest.mark.parametrize(
    "tensors",
    [
        {f"{KOHYA}.lora_unheard_of": normal(3)},
        {f"{KOHYA}.lora_unheard_of.weight": normal(3)},
        {f"unet.{QUERY}.weight": normal(64, 64)},
        {f"diffusion_model.{MODULE}.to_out.0.bias": normal(64)},
    ],
)
@pytest.mark.parametrize("partial", [False, True])
def test_a_part_of_a_module_is_never_left_out(tmp_path, tensors, partial):
    metadata = {"ss_network_args": '{"algo": "abba"}'}
    source = write(tmp_path / "a.safetensors", factors(KOHYA) | tensors, **metadata)
    with pytest.raises(HotshotError, match="method 'abba' that are not known") as caught:
        read_lora(source, names(), allow_partial=partial)
    assert "allow_partial" not in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (
            {f"{KOHYA}.hada_w{i}_{j}": normal(64, 3) for i in (1, 2) for j in "ab"},
            "parts of several methods",
        ),
        (
            {
                f"{KOHYA}.dora_scale": normal(64, 1),
                f"{KOHYA}.lora_magnitude_vector": normal(64),
            },
            "both dora_scale",
        ),
        (
            {
                f"unet.{QUERY}.lora_A.weight": DOWN,
                f"unet.{QUERY}.lora_B.weight": UP,
                f"{ORIGINAL}.lora_down.weight": DOWN,
                f"{ORIGINAL}.lora_up.weight": UP,
                f"{ORIGINAL}.dora_scale": normal(64, 1),
            },
            "one has more",
        ),
    ],
)
def test_parts_that_would_be_passed_over(tmp_path, tensors, message):
    first = factors(KOHYA) if ORIGINAL not in next(reversed(tensors)) else {}
    source = write(tmp_path / "a.safetensors", first | tensors)
    with pytest.raises(HotshotError, match=message):
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
        ("lora_diag", "KaSA"),
        ("q_layer.weight", "T-LoRA"),
        ("lambda_layer", "T-LoRA"),
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
        ('{"unet.init_lora_weights": "pissa_niter_4"}', "started with PiSSA"),
        ('{"unet.init_lora_weights": "OLoRA"}', "started with OLoRA"),
        ('{"unet.init_lora_weights": "corda"}', "started with CorDA"),
        ('{"unet.init_lora_weights": "lora_ga"}', "started with LoRA-GA"),
        ('{"unet.init_lora_weights": "loftq"}', "started with LoftQ"),
        ('{"text_encoder.init_lora_weights": "pissa"}', "started with PiSSA"),
        ('{"unet.init_lora_weights": "clever"}', "is not known here"),
        ('{"unet.kasa_config": {"beta": 1}}', "uses KaSA"),
        ('{"unet.layer_replication": [[0, 1]]}', "replicated layers"),
        ('{"unet.use_something": true}', "use_something = True, which is not known"),
        ('{"unet.something_config": {"a": 1}}', "something_config = .* not known"),
        ('{"unet.use_dora": true}', "no magnitude"),
        ('{"unet.alpha_pattern": [1]}', "not a table"),
        ('{"unet.alpha_pattern": {"(": 1}}', "no regular expression"),
    ],
)
def test_bad_headers(tmp_path, metadata, message):
    tensors = factors(f"unet.{QUERY}", style="peft")
    source = write(tmp_path / "a.safetensors", tensors, lora_adapter_metadata=metadata)
    with pytest.raises(HotshotError, match=message):
        read_lora(source, names())
