"""Merged weights against current diffusers and peft, for the files that they load."""

import json
import warnings

import numpy as np
import pytest
import torch
from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel
from lora_cases import GOLDEN, config, merge, names, normal, state_dict, write
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.numpy import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.lora import Factors, lora_metadata, lora_tensors, read_lora

# float32 products of rank 8 at most, weights of order 1.
TOLERANCE = 1e-5
TARGETS = ["attn1.to_q", "attn2.to_out.0", "ff.net.0.proj", "conv1"]


def spatial(component: str) -> dict[str, torch.Tensor]:
    tensors = state_dict(component)
    return {k: torch.tensor(v) for k, v in tensors.items() if "temporal_attentions" not in k}


def text_model(cls, component):
    values = {key: each for key, each in config(component).items() if key[0] != "_"}
    model = cls(CLIPTextConfig(**values))
    tensors = spatial(component)
    if not hasattr(model, "text_model"):
        tensors = {key.removeprefix("text_model."): each for key, each in tensors.items()}
    model.load_state_dict(tensors, strict=True)
    return model.eval()


@pytest.fixture
def pipeline():
    return tiny_pipeline()


def tiny_pipeline():
    values = {
        key: json.loads(json.dumps(each).replace("3D", "2D"))
        for key, each in config("unet").items()
        if key[0] != "_"
    }
    unet = UNet2DConditionModel(**values)
    unet.load_state_dict(spatial("unet"), strict=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StableDiffusionXLPipeline(
            vae=None,
            text_encoder=text_model(CLIPTextModel, "text_encoder"),
            text_encoder_2=text_model(CLIPTextModelWithProjection, "text_encoder_2"),
            tokenizer=None,
            tokenizer_2=None,
            unet=unet,
            scheduler=EulerDiscreteScheduler(),
        )


def fused(pipeline, loras: dict[str, float]) -> dict[str, dict[str, np.ndarray]]:
    """Every weight after diffusers has loaded and fused the files at these strengths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for index, path in enumerate(loras):
            pipeline.load_lora_weights(str(path), adapter_name=f"n{index}")
        adapters = [f"n{index}" for index in range(len(loras))]
        pipeline.set_adapters(adapters, list(loras.values()))
        pipeline.fuse_lora(
            components=["unet", "text_encoder", "text_encoder_2"], adapter_names=adapters
        )
        pipeline.unload_lora_weights()
    result = {}
    for component in ("unet", "text_encoder", "text_encoder_2"):
        module = getattr(pipeline, component)
        prefix = "" if hasattr(module, "text_model") or component == "unet" else "text_model."
        result[component] = {prefix + k: v.numpy() for k, v in module.state_dict().items()}
    return result


def check(pipeline, loras: dict, *, least: int = 10):
    expected = fused(pipeline, loras)
    read = [(read_lora(open_file(path), names()), scale) for path, scale in loras.items()]
    total = 0
    for component, tensors in expected.items():
        base = state_dict(component)
        merged = merge(base, component, read)
        total += len(merged)
        for name, each in tensors.items():
            if name.endswith("position_ids"):
                continue
            ours = merged.get(name, base[name])
            np.testing.assert_allclose(ours, each, atol=TOLERANCE, rtol=0, err_msg=name)
        moved = max(np.abs(merged[name] - base[name]).max() for name in merged) if merged else 1
        assert moved > 100 * TOLERANCE
    assert total >= least


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The stored files, with one alpha for all modules.

    Where alphas differ, current diffusers (0.42) gives the most frequent one to the UNet's
    attention. The reference does not, and the outputs stored for these files tell.
    """
    folder = tmp_path_factory.mktemp("files")
    for path in (GOLDEN / "lora").glob("*.safetensors"):
        tensors = load_file(path)
        alphas = {key: np.float32(1.5) for key in tensors if key.endswith(".alpha")}
        write(folder / path.name, tensors | alphas)
    return folder


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("lora_diffusers", 0.6),
        ("lora_kohya", 1.0),
        ("lora_kohya", 0.6),
        ("lora_kohya_diffusers_names", 0.6),
    ],
)
def test_stored_files(pipeline, files, name, scale):
    check(pipeline, {files / f"{name}.safetensors": scale}, least=100)


def test_two_at_once(pipeline, files):
    check(
        pipeline,
        {
            files / "lora_kohya.safetensors": 1.0,
            files / "lora_kohya_diffusers_names.safetensors": 0.6,
        },
    )


def adapter(**options):
    """A random PEFT adapter in all three models, and its configuration as diffusers saves it."""
    pipeline = tiny_pipeline()
    torch.manual_seed(0)
    layers, metadata = {}, {}
    # Of text encoders, current diffusers (0.42) does not load the magnitudes of DoRA.
    components = (
        ("unet",) if options.get("use_dora") else ("unet", "text_encoder", "text_encoder_2")
    )
    for component, targets in (
        ("unet", TARGETS),
        ("text_encoder", ["q_proj", "fc1"]),
        ("text_encoder_2", ["k_proj", "out_proj", "text_projection"]),
    ):
        if component not in components:
            continue
        lora = LoraConfig(target_modules=targets, init_lora_weights=False, **options)
        module = getattr(pipeline, component)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Not the models' own add_adapter: transformers 5.24 refuses every peft with it.
            inject_adapter_in_model(lora, module, adapter_name="default")
            tensors = get_peft_model_state_dict(module)
        for key in tensors:
            if "magnitude" in key:
                # At first a magnitude is the norm itself and without effect.
                tensors[key] = tensors[key] * (1 + 0.2 * torch.rand_like(tensors[key]))
        layers[f"{component}_lora_layers"] = tensors
        metadata[f"{component}_lora_adapter_metadata"] = lora.to_dict()
    return layers, metadata


@pytest.mark.parametrize(
    ("options", "scale"),
    [
        ({"r": 4, "lora_alpha": 3}, 0.6),
        ({"r": 4, "lora_alpha": 8, "use_rslora": True}, 1.0),
        (
            {
                "r": 4,
                "lora_alpha": 8,
                "rank_pattern": {"attn1.to_q": 2, "fc1": 3},
                "alpha_pattern": {"attn1.to_q": 6, "conv1": 1},
            },
            0.6,
        ),
        ({"r": 2, "lora_alpha": 4, "use_dora": True}, 1.0),
        ({"r": 2, "lora_alpha": 4, "use_dora": True}, 0.6),
    ],
    ids=["plain", "rslora", "patterns", "dora-1", "dora-0.6"],
)
def test_files_that_diffusers_saves(pipeline, tmp_path, options, scale):
    layers, metadata = adapter(**options)
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, **layers, **metadata)
    check(pipeline, {tmp_path / "pytorch_lora_weights.safetensors": scale})


def test_without_metadata_alpha_is_the_rank(pipeline, tmp_path):
    layers, _ = adapter(r=4, lora_alpha=16)
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, **layers)
    path = tmp_path / "pytorch_lora_weights.safetensors"
    check(pipeline, {path: 1.0})


def test_kohya_convolutions_and_edges(pipeline, tmp_path):
    """Modules that the stored files leave out, under kohya's original names."""
    tensors = {}
    for name, out, inner in (
        ("input_blocks_0_0", 32, (4, 3, 3)),
        ("input_blocks_3_0_op", 32, (32, 3, 3)),
        ("output_blocks_2_2_conv", 128, (128, 3, 3)),
        ("out_2", 4, (32, 3, 3)),
        ("time_embed_0", 128, (32,)),
        ("label_emb_0_2", 128, (128,)),
        ("middle_block_0_emb_layers_1", 128, (128,)),
        ("input_blocks_4_0_skip_connection", 64, (32, 1, 1)),
    ):
        tensors[f"lora_unet_{name}.lora_down.weight"] = normal(2, *inner)
        tensors[f"lora_unet_{name}.lora_up.weight"] = normal(out, 2, *(1 for _ in inner[1:]))
        tensors[f"lora_unet_{name}.alpha"] = np.float32(1.5)
    path = tmp_path / "kohya.safetensors"
    write(path, tensors)
    check(pipeline, {path: 0.6}, least=8)


def test_file_is_what_diffusers_saved(tmp_path):
    """The header is really there: otherwise the metadata tests would test nothing."""
    layers, metadata = adapter(r=4, lora_alpha=3)
    StableDiffusionXLPipeline.save_lora_weights(tmp_path, **layers, **metadata)
    source = open_file(tmp_path / "pytorch_lora_weights.safetensors")
    assert json.loads(source.metadata["lora_adapter_metadata"])["unet.lora_alpha"] == 3
    assert len(load_file(source.path)) == len(source)


@pytest.mark.parametrize("spelling", ["peft", "kohya"])
def test_diffusers_loads_what_is_written_here(pipeline, tmp_path, spelling):
    query = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    factors = {
        "unet": {
            query: Factors(normal(3, 64), normal(64, 3)),
            query.replace("to_q", "to_out.0"): Factors(normal(3, 64, seed=1), normal(64, 3)),
        },
        # Of text encoders, diffusers finds out the kind of a file by this layer.
        "text_encoder": {
            "text_model.encoder.layers.0.self_attn.out_proj": Factors(normal(3, 24), normal(24, 3))
        },
        "text_encoder_2": {
            "text_model.encoder.layers.0.self_attn.out_proj": Factors(normal(3, 40), normal(40, 3))
        },
    }
    path = tmp_path / "written.safetensors"
    metadata = lora_metadata(factors, title="colour", alpha=1.5)
    write(path, lora_tensors(factors, alpha=1.5, spelling=spelling), **metadata)
    check(pipeline, {path: 0.6}, least=4)
