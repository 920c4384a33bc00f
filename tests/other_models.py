"""Checkpoint folders in Hotshot-XL's layout, turned into those of other models."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def change_json(file: Path, **changes: Any) -> None:
    """Sets keys of a JSON file; a value of `...` removes the key. A link is replaced by a file."""
    value = json.loads(file.read_text()) | changes
    file.unlink()
    file.write_text(json.dumps({key: each for key, each in value.items() if each is not ...}))


def stable_diffusion(width: int) -> Callable[[Path], None]:
    """Stable Diffusion 1.5 or 2, told apart by the width of their text embeddings (768, 1024)."""

    def make(folder: Path) -> None:
        for name in ("text_encoder_2", "tokenizer_2"):
            shutil.rmtree(folder / name)
        change_json(
            folder / "model_index.json",
            _class_name="StableDiffusionPipeline",
            unet=["diffusers", "UNet2DConditionModel"],
            text_encoder_2=...,
            tokenizer_2=...,
        )
        change_json(
            folder / "unet" / "config.json",
            _class_name="UNet2DConditionModel",
            cross_attention_dim=width,
            addition_embed_type=...,
            block_out_channels=[320, 640, 1280, 1280],
        )

    return make


def refiner(folder: Path) -> None:
    """The SDXL refiner, which has the second text encoder alone."""
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    change_json(
        folder / "model_index.json",
        _class_name="StableDiffusionXLImg2ImgPipeline",
        unet=["diffusers", "UNet2DConditionModel"],
        text_encoder=[None, None],
        tokenizer=[None, None],
    )
    change_json(
        folder / "unet" / "config.json",
        cross_attention_dim=1280,
        block_out_channels=[384, 768, 1536, 1536],
    )


def transformer(pipeline: str, model: str) -> Callable[[Path], None]:
    """A pipeline with a diffusion transformer in the place of the UNet, by their class names."""

    def make(folder: Path) -> None:
        (folder / "unet").rename(folder / "transformer")
        change_json(
            folder / "model_index.json",
            _class_name=pipeline,
            unet=...,
            transformer=["diffusers", model],
        )

    return make
