import numpy as np
import pytest
from lora_cases import merge, names, normal, state_dict, write

from hotshot_jax.errors import UsageError
from hotshot_jax.lora import Factors, lora_metadata, lora_tensors, read_lora

SPATIAL = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
TEMPORAL = "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0.to_q"
TEXT = "text_model.encoder.layers.0.mlp.fc1"
FACTORS = {
    "unet": {
        SPATIAL: Factors(normal(3, 64), normal(64, 3)),
        TEMPORAL: Factors(normal(3, 32), normal(32, 3)),
    },
    "text_encoder_2": {TEXT: Factors(normal(3, 40), normal(160, 3))},
}


@pytest.mark.parametrize("spelling", ["peft", "kohya"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_what_is_written_is_read(tmp_path, spelling, dtype):
    tensors = lora_tensors(FACTORS, alpha=1.5, spelling=spelling, dtype=dtype)
    assert {each.dtype for each in tensors.values()} == {np.dtype(dtype)}
    metadata = lora_metadata(FACTORS, title="colour", alpha=1.5)
    lora = read_lora(write(tmp_path / "a.safetensors", tensors, **metadata), names())
    assert not lora.report.unmatched and lora.report.matched == {"unet": 2, "text_encoder_2": 1}
    for component, modules in FACTORS.items():
        base = state_dict(component)
        merged = merge(base, component, [(lora, 1.0)])
        for module, each in modules.items():
            name = f"{module}.weight"
            expected = base[name] + 0.5 * each.up.astype(np.float64) @ each.down
            # Three products of order 1; float16 has 11 bits.
            tolerance = 1e-5 if dtype == np.float32 else 1e-2
            np.testing.assert_allclose(merged[name], expected, atol=tolerance)


def test_documented_names():
    peft, kohya = (lora_tensors(FACTORS, alpha=1, spelling=each) for each in ("peft", "kohya"))
    assert f"unet.{TEMPORAL}.lora_A.weight" in peft
    assert "lora_unet_" + TEMPORAL.replace(".", "_") + ".lora_up.weight" in kohya
    assert "lora_te2_text_model_encoder_layers_0_mlp_fc1.alpha" in kohya


def test_unknown_spelling():
    with pytest.raises(UsageError, match="peft or kohya"):
        lora_tensors(FACTORS, alpha=1, spelling="other")


def test_metadata_names_model_rank_and_alpha():
    metadata = lora_metadata(FACTORS, title="colour", alpha=1.5)
    assert metadata["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert metadata["ss_network_dim"] == "3" and metadata["ss_network_alpha"] == "1.5"
    assert all(isinstance(each, str) for each in metadata.values())
