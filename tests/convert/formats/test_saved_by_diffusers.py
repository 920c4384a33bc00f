"""Components as current diffusers and transformers save them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoint_folders import GOLDEN
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel

from hotshot_jax.convert.formats.diffusers_folder import open_component


def _config(name: str) -> dict:
    return json.loads((GOLDEN / "models" / f"{name}.config.json").read_text())


@pytest.mark.parametrize("variant", [None, "fp16", "non_ema"])
@pytest.mark.parametrize("shard", ["100MB", "2MB"])
@pytest.mark.parametrize("component", ["vae", "text_encoder"])
def test_variants_and_shards(
    tmp_path: Path, component: str, shard: str, variant: str | None
) -> None:
    torch.manual_seed(0)
    if component == "vae":
        model = AutoencoderKL.from_config(_config("vae_tiny")).to(torch.float16)
    else:
        small = {**_config("clip_l_tiny"), "hidden_size": 96, "vocab_size": 20000}
        model = CLIPTextModel(CLIPTextConfig(**small)).to(torch.float16)
    model.save_pretrained(tmp_path, variant=variant, max_shard_size=shard)
    opened = open_component(tmp_path, component, variant)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "2MB")
    assert opened.variant == variant
    assert opened.notes == ()
    expected = model.state_dict()
    assert set(opened.tensors) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(opened.tensors.read(name), value.numpy(), strict=True)
