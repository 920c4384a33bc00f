"""A checkpoint folder in the published layout, with formula weights."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.models.formula_weights import formula_tensor
from hotshot_jax.models.layers.embeddings import positional_encoding

_WEIGHT_FILES = {
    "unet": "diffusion_pytorch_model.safetensors",
    "vae": "diffusion_pytorch_model.safetensors",
    "text_encoder": "model.safetensors",
    "text_encoder_2": "model.safetensors",
}
_LIBRARIES = {
    "unet": ("hotshot_xl.models.unet", "UNet3DConditionModel"),
    "vae": ("diffusers", "AutoencoderKL"),
    "text_encoder": ("transformers", "CLIPTextModel"),
    "text_encoder_2": ("transformers", "CLIPTextModelWithProjection"),
    "tokenizer": ("transformers", "CLIPTokenizer"),
    "tokenizer_2": ("transformers", "CLIPTokenizer"),
}


def write_checkpoint(
    folder: Path,
    models: Mapping[str, tuple[Path, Path, int]],
    tokenizers: Mapping[str, Path],
    scheduler: tuple[str, Mapping[str, Any]],
) -> None:
    """Writes what `from_pretrained` reads.

    Args:
        folder: does not exist, or is empty.
        models: for `unet`, `vae`, `text_encoder` and `text_encoder_2` the configuration file, the
            file that lists names and shapes, and the weight seed.
        tokenizers: the folders of `tokenizer` and `tokenizer_2`.
        scheduler: diffusers' class name, and the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for component, (config, shapes, seed) in models.items():
        target = folder / component
        target.mkdir()
        shutil.copyfile(config, target / "config.json")
        tensors = _tensors(json.loads(shapes.read_text()), seed)
        save_file(tensors, target / _WEIGHT_FILES[component], {"format": "pt"})
    for component, source in tokenizers.items():
        (folder / component).mkdir()
        for file in source.iterdir():
            shutil.copyfile(file, folder / component / file.name)
    class_name, options = scheduler
    _write_json(
        folder / "scheduler" / "scheduler_config.json", {"_class_name": class_name, **options}
    )
    libraries = {**_LIBRARIES, "scheduler": ("diffusers", class_name)}
    _write_json(
        folder / "model_index.json",
        {
            "_class_name": "HotshotXLPipeline",
            "_diffusers_version": "0.21.4",
            "force_zeros_for_empty_prompt": True,
            **libraries,
        },
    )


def _tensors(shapes: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Learned tensors by formula, and the tables of positions, which checkpoints carry too."""
    return {
        name: positional_encoding(*entry["shape"][1:])[None]
        if entry["buffer"]
        else formula_tensor(name, tuple(entry["shape"]), seed)
        for name, entry in shapes.items()
    }


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=2))
