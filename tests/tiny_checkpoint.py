"""The smallest checkpoint in the published layout, for tests in which the picture does not matter.

Two levels, one layer each: it compiles in a fifth of the time of the models of the parity data.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.convert.builders import KINDS, Build, model_builder
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters

GOLDEN = Path(__file__).parent / "golden"


def tiny_configs() -> dict[str, Any]:
    """The configurations of the four models, by component."""
    models = GOLDEN / "models"
    configs = {
        "unet": json.loads((models / "unet_tiny.config.json").read_text()),
        "vae": json.loads((models / "vae_tiny.config.json").read_text()),
        "text_encoder": json.loads((models / "clip_l_tiny.config.json").read_text()),
        "text_encoder_2": json.loads((models / "clip_g_tiny.config.json").read_text()),
    }
    configs["unet"] |= {
        "block_out_channels": [32, 64],
        "attention_head_dim": [2, 4],
        "transformer_layers_per_block": [1, 2],
        "layers_per_block": 1,
        "down_block_types": ["DownBlock3D", "CrossAttnDownBlock3D"],
        "up_block_types": ["CrossAttnUpBlock3D", "UpBlock3D"],
        "sample_size": 2,
    }
    configs["vae"] |= {"block_out_channels": [32, 32, 32, 32], "layers_per_block": 1}
    return configs


def write_tiny_checkpoint(
    folder: Path, dtype: Any = jnp.float32, configs: dict[str, Any] | None = None
) -> Path:
    """Writes the checkpoint to `folder`, with weights of that dtype, and returns the folder."""
    configs = configs or tiny_configs()
    for seed, name in enumerate(KINDS):
        build = model_builder(name, configs[name], where=name, param_dtype=dtype)
        write_component(folder / name, name, configs[name], _random(build, seed))
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(GOLDEN / "e2e" / name, folder / name)
    case = json.loads((GOLDEN / "cases" / "e2e_euler_ancestral.json").read_text())
    scheduler = {"_class_name": case["scheduler"]["class"], **case["scheduler"]["config"]}
    (folder / "scheduler").mkdir()
    (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    index = {
        "_class_name": "HotshotXLPipeline",
        "_diffusers_version": "0.21.4",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", case["scheduler"]["class"]],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": ["hotshot_xl", "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def _random(build: Build, seed: int) -> nnx.Module:
    """The module with random numbers in every parameter, none at a special value such as zero."""
    generator = np.random.default_rng(seed)
    module = abstract(build)
    values = {}
    for path, parameter in flat_parameters(module).items():
        noise = generator.standard_normal(parameter.shape, np.float32)
        if path[-1] == "kernel":
            value = noise / np.sqrt(np.prod(parameter.shape[-4:-1]))
        else:
            value = (path[-1] == "scale") + 0.1 * noise
        values[path] = value.astype(parameter.dtype)
    return with_parameters(module, values)
