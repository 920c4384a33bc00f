"""What PEFT's configurations make of an adapter's tensors, against PEFT's own merge."""

import copy
import warnings

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from lora_cases import merge
from peft import LoraConfig, PeftModel, get_peft_model

from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import ModuleNames, open_lora


@pytest.fixture(scope="module")
def unet():
    torch.manual_seed(0)
    model = UNet2DConditionModel(
        block_out_channels=(16, 32),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=80,
        cross_attention_dim=32,
        norm_num_groups=8,
    )
    return model.eval()


def save(unet, folder, **options):
    """A PEFT adapter with random changes of all that it trains."""
    config = LoraConfig(**{"target_modules": ["to_q", "to_out.0"], **options})
    torch.manual_seed(0)
    model = get_peft_model(copy.deepcopy(unet), config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.rand_like(parameter))
    model.save_pretrained(folder)


def ours(unet, folder):
    base = {name: value.numpy() for name, value in unet.state_dict().items()}
    names = ModuleNames({"unet": {name: each.shape for name, each in base.items()}})
    return base, merge(base, "unet", [(open_lora(folder, names), 1.0)])


@pytest.mark.parametrize(
    "options",
    [
        {"r": 4, "lora_alpha": 6, "init_lora_weights": "gaussian"},
        {"r": 4, "lora_alpha": 6, "init_lora_weights": "orthogonal"},
        {"r": 4, "lora_alpha": 6, "init_lora_weights": "eva"},
        {"r": 4, "lora_alpha": 6, "init_lora_weights": "mica"},
        {"r": 4, "lora_alpha": 6, "use_rslora": True, "rank_pattern": {"attn1.to_q": 2}},
        {"r": 4, "lora_alpha": 6, "alpha_pattern": {r"down_blocks.*attn2\.to_q": 3}},
        {"r": 4, "lora_alpha": 6, "lora_bias": True, "target_modules": ["to_out.0", "conv1"]},
        {"r": 4, "lora_alpha": 6, "bias": "lora_only"},
        {"r": 4, "lora_alpha": 6, "bias": "all"},
        {"r": 4, "lora_alpha": 6, "modules_to_save": ["conv_out", "time_embedding.linear_1"]},
        {"r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["to_q", "conv1"]},
        {"r": 4, "lora_alpha": 6, "velora_config": {"num_groups": 8}},
        {"r": 4, "lora_alpha": 6, "layers_to_transform": [0], "layers_pattern": "attentions"},
    ],
    ids=lambda options: "-".join(str(each) for each in list(options)[2:]) + str(len(str(options))),
)
def test_merged_as_peft_merges(unet, tmp_path, options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save(unet, tmp_path, **options)
        model = PeftModel.from_pretrained(copy.deepcopy(unet), str(tmp_path)).merge_and_unload()
    base, merged = ours(unet, tmp_path)
    changed = 0
    for name, expected in model.state_dict().items():
        np.testing.assert_allclose(
            merged.get(name, base[name]), expected.numpy(), atol=1e-5, err_msg=name
        )
        changed += float(np.abs(expected.numpy() - base[name]).max()) > 1e-3
    assert changed >= 2


@pytest.mark.parametrize("start", ["pissa", "pissa_niter_2", "olora"])
def test_moved_base_weights_are_refused(unet, tmp_path, start):
    save(unet, tmp_path, r=4, lora_alpha=4, init_lora_weights=start)
    with pytest.raises(HotshotError, match=r"also changes the base weights.*\n.*plain LoRA"):
        ours(unet, tmp_path)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_the_cure_is_one(unet, tmp_path, start):
    """What the refusal advises gives the weights that were trained."""
    torch.manual_seed(0)
    config = LoraConfig(r=4, lora_alpha=4, init_lora_weights=start, target_modules=["to_q"])
    model = get_peft_model(copy.deepcopy(unet), config)
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = start
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.rand_like(parameter))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save_pretrained(
            tmp_path / "plain", path_initial_model_for_weight_conversion=tmp_path / "initial"
        )
    base, merged = ours(unet, tmp_path / "plain")
    for name, expected in model.merge_and_unload().state_dict().items():
        np.testing.assert_allclose(merged.get(name, base[name]), expected.numpy(), atol=1e-4)
