"""Checkpoint folders in the published layout with a handful of small tensors, to be broken."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

GOLDEN = Path(__file__).parents[1] / "golden"
CONFIGS = {
    "unet": "hotshot_xl_full.unet",
    "vae": "sdxl_full.vae",
    "text_encoder": "sdxl_full.text_encoder",
    "text_encoder_2": "sdxl_full.text_encoder_2",
}
TEMPORAL = "down_blocks.0.temporal_attentions.0.norm.weight"
STEMS = {
    "unet": "diffusion_pytorch_model",
    "vae": "diffusion_pytorch_model",
    "text_encoder": "model",
    "text_encoder_2": "model",
}


def config(component: str) -> dict[str, Any]:
    return json.loads((GOLDEN / "models" / f"{CONFIGS[component]}.config.json").read_text())


def tensors(component: str, dtype: Any = np.float32) -> dict[str, np.ndarray]:
    named = {"first.weight": (2, 3), "second.weight": (4,), "third.bias": (5,)}
    if component == "unet":
        named[TEMPORAL] = (8,)
    return {
        name: np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        for name, shape in named.items()
    }


def write_checkpoint(folder: Path, unet_library: str = "hotshot_xl") -> Path:
    """Writes a folder of which every file is there and whole."""
    index = {
        "_class_name": "HotshotXLPipeline",
        "_diffusers_version": "0.21.4",
        "force_zeros_for_empty_prompt": True,
        "scheduler": ["diffusers", "EulerAncestralDiscreteScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "text_encoder_2": ["transformers", "CLIPTextModelWithProjection"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "tokenizer_2": ["transformers", "CLIPTokenizer"],
        "unet": [unet_library, "UNet3DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    folder.mkdir(parents=True)
    write_json(folder / "model_index.json", index)
    for name in CONFIGS:
        (folder / name).mkdir()
        write_json(folder / name / "config.json", config(name))
        save_file(tensors(name), folder / name / f"{STEMS[name]}.safetensors")
    for name in ("tokenizer", "tokenizer_2"):
        shutil.copytree(GOLDEN / "e2e" / name, folder / name, copy_function=shutil.copyfile)
        (folder / name).chmod(0o755)
    (folder / "scheduler").mkdir()
    write_json(
        folder / "scheduler" / "scheduler_config.json",
        {"_class_name": "EulerAncestralDiscreteScheduler", "beta_start": 0.00085},
    )
    return folder


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2))


def write_shards(
    folder: Path, names: tuple[str, str], index: str, values: Mapping[str, np.ndarray]
) -> None:
    """Splits tensors between two shards, in place of what the folder held."""
    for old in folder.glob("*.safetensors"):
        old.unlink()
    keys = list(values)
    halves = keys[: len(keys) // 2], keys[len(keys) // 2 :]
    weight_map = {}
    for shard, half in zip(names, halves, strict=True):
        save_file({key: values[key] for key in half}, folder / shard)
        weight_map |= dict.fromkeys(half, shard)
    size = sum(each.nbytes for each in values.values())
    write_json(folder / index, {"metadata": {"total_size": size}, "weight_map": weight_map})
