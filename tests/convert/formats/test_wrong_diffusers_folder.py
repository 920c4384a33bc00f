"""Checkpoint folders of other models, of none, and broken ones: each is named and refused."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoint_folders import tensors
from safetensors.numpy import save_file

from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder
from hotshot_jax.errors import HotshotError, UsageError
from tests.other_models import change_json, refiner, stable_diffusion, transformer


def _index(folder: Path, **changes: Any) -> None:
    change_json(folder / "model_index.json", **changes)


OTHER_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "SD 1.5": (stable_diffusion(768), "is Stable Diffusion 1.5;"),
    "SD 2": (stable_diffusion(1024), "is Stable Diffusion 2;"),
    "refiner": (refiner, "is the SDXL refiner"),
    "inpainting": (
        lambda folder: change_json(folder / "unet" / "config.json", in_channels=9),
        "is an inpainting model (its UNet takes 9 channels)",
    ),
    "editing": (
        lambda folder: change_json(folder / "unet" / "config.json", in_channels=8),
        "is an image-editing model",
    ),
    "Flux": (transformer("FluxPipeline", "FluxTransformer2DModel"), "is a Flux model"),
    "SD3": (
        transformer("StableDiffusion3Pipeline", "SD3Transformer2DModel"),
        "is a Stable Diffusion 3 model",
    ),
    "other transformer": (
        transformer("NewPipeline", "NewTransformer2DModel"),
        "is a diffusion transformer (NewTransformer2DModel)",
    ),
    "AnimateDiff": (
        lambda folder: _index(folder, _class_name="AnimateDiffSDXLPipeline"),
        "is an AnimateDiff pipeline",
    ),
    "ControlNet pipeline": (
        lambda folder: _index(folder, controlnet=["diffusers", "ControlNetModel"]),
        "is a ControlNet pipeline",
    ),
    "Kolors": (
        lambda folder: _index(
            folder, _class_name="KolorsPipeline", text_encoder=["kolors", "ChatGLMModel"]
        ),
        "is a KolorsPipeline whose text_encoder is ChatGLMModel (expected CLIPTextModel)",
    ),
    "SVD": (
        lambda folder: _index(folder, unet=["diffusers", "UNetSpatioTemporalConditionModel"]),
        "whose unet is UNetSpatioTemporalConditionModel",
    ),
}


def _refusal(folder: Path, expected: str) -> HotshotError:
    with pytest.raises(HotshotError) as caught:
        open_diffusers_folder(folder)
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)
    return caught.value


@pytest.mark.parametrize("case", OTHER_MODELS)
def test_other_models_are_named(folder: Path, case: str) -> None:
    make, expected = OTHER_MODELS[case]
    make(folder)
    assert "expected a Hotshot-XL checkpoint" in str(_refusal(folder, expected))


def _only(*names: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        for name in names:
            if name.endswith("/"):
                (folder / name).mkdir()
            else:
                (folder / name).write_text("{}")

    return make


WRONG_FOLDERS: dict[str, tuple[Callable[[Path], Any], str, type[HotshotError]]] = {
    "missing": (shutil.rmtree, "does not exist; expected a Hotshot-XL checkpoint", UsageError),
    "a file": (
        lambda folder: (shutil.rmtree(folder), folder.write_bytes(b"x")),
        "is a file; expected a Hotshot-XL checkpoint",
        UsageError,
    ),
    "empty": (_only(), "is an empty folder", HotshotError),
    "unrelated": (
        _only("a", "b", "c", "d", "e", "f"),
        "(it holds a, b, c, d, e, ...)",
        HotshotError,
    ),
    "Hub cache root": (_only("blobs/", "refs/", "snapshots/"), "Hub cache; pass", HotshotError),
    "LoRA": (_only("pytorch_lora_weights.safetensors"), "looks like a LoRA", HotshotError),
    "converted": (_only("hotshot_jax.json"), "was converted already", HotshotError),
}


@pytest.mark.parametrize("case", WRONG_FOLDERS)
def test_wrong_folders(folder: Path, case: str) -> None:
    make, expected, kind = WRONG_FOLDERS[case]
    make(folder)
    assert type(_refusal(folder, expected)) is kind


def test_folder_of_one_component(folder: Path) -> None:
    with pytest.raises(HotshotError, match="single UNet3DConditionModel, not a whole checkpoint"):
        open_diffusers_folder(folder / "unet")
    change_json(folder / "text_encoder" / "config.json", _class_name=...)
    with pytest.raises(HotshotError, match="single CLIPTextModel, not a whole checkpoint"):
        open_diffusers_folder(folder / "text_encoder")


def _write(path: str, content: bytes) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).write_bytes(content)


def _remove(path: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / path).unlink()


def _change(path: str, **changes: Any) -> Callable[[Path], Any]:
    return lambda folder: change_json(folder / path, **changes)


UNET_FILE = "unet/diffusion_pytorch_model.safetensors"
BROKEN: dict[str, tuple[Callable[[Path], Any], str]] = {
    "half the components": (
        lambda folder: [shutil.rmtree(folder / name) for name in ("vae", "text_encoder_2")],
        "lacks the folders vae/, text_encoder_2/;",
    ),
    "scheduler folder missing": (
        lambda folder: shutil.rmtree(folder / "scheduler"),
        "lacks the folder scheduler/;",
    ),
    "index not JSON": (_write("model_index.json", b"{"), "model_index.json is not valid JSON"),
    "index empty": (_write("model_index.json", b" \n"), "model_index.json is empty"),
    "index a pointer": (
        _write("model_index.json", b"version https://git-lfs.github.com/spec/v1\n"),
        "model_index.json is a Git-LFS pointer",
    ),
    "index a list": (_write("model_index.json", b"[]"), "an object was expected"),
    "config missing": (_remove("unet/config.json"), "unet/config.json does not exist"),
    "config not JSON": (_write("vae/config.json", b"{'a': 1}"), "vae/config.json is not valid"),
    "config not UTF-8": (_write("vae/config.json", b'{"\xe9": 1}'), "vae/config.json is not UTF-8"),
    "config a web page": (_write("vae/config.json", b"<html>"), "vae/config.json is a web page"),
    "unet field missing": (
        _change("unet/config.json", block_out_channels=..., up_block_types=...),
        "unet/config.json lacks 'block_out_channels', 'up_block_types'",
    ),
    "vae field missing": (
        _change("vae/config.json", latent_channels=...),
        "vae/config.json lacks 'latent_channels'",
    ),
    "text field missing": (
        _change("text_encoder_2/config.json", num_hidden_layers=None),
        "text_encoder_2/config.json lacks 'num_hidden_layers'",
    ),
    "weights missing": (_remove(UNET_FILE), "unet holds no .safetensors weights; download"),
    "weights truncated": (
        lambda folder: os.truncate(folder / UNET_FILE, 300),
        "diffusion_pytorch_model.safetensors is cut short",
    ),
    "weights zero bytes": (_write(UNET_FILE, b""), "is empty (zero bytes)"),
    "weights a pointer": (
        _write(UNET_FILE, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
        "is a Git-LFS pointer",
    ),
    "weights a web page": (_write(UNET_FILE, b"<!DOCTYPE html>"), "is a web page"),
    "weights 8-bit": (
        lambda folder: save_file(tensors("unet", ml_dtypes.float8_e4m3fn), folder / UNET_FILE),
        "quantised to float8_e4m3fn",
    ),
    "weights integers": (
        lambda folder: save_file(tensors("unet", np.int8), folder / UNET_FILE),
        "not floating-point numbers but int8",
    ),
    "weights quantised": (
        lambda folder: save_file(
            {**tensors("unet"), "x.weight.absmax": np.ones(1)}, folder / UNET_FILE
        ),
        "is quantised with bitsandbytes 4-bit",
    ),
    "quantised by configuration": (
        _change("unet/config.json", quantization_config={"quant_method": "bitsandbytes"}),
        "unet/config.json describes quantised weights (bitsandbytes)",
    ),
    "vocabulary missing": (_remove("tokenizer/vocab.json"), "tokenizer lacks vocab.json"),
    "vocabulary and merges missing": (
        lambda folder: [
            (folder / "tokenizer_2" / name).unlink() for name in ("vocab.json", "merges.txt")
        ],
        "tokenizer_2 lacks vocab.json and merges.txt",
    ),
    "vocabulary corrupt": (_write("tokenizer/vocab.json", b'{"a": 1,'), "vocab.json is not valid"),
    "vocabulary empty": (_write("tokenizer/vocab.json", b"{}"), "vocab.json is empty"),
    "merges empty": (_write("tokenizer/merges.txt", b"#version: 0.2\nx\n"), "holds no merges"),
    "merges not UTF-8": (_write("tokenizer/merges.txt", b"\xff\xfe a"), "merges.txt is not UTF-8"),
    "merges a web page": (_write("tokenizer/merges.txt", b"<html> a b"), "merges.txt is a web"),
    "fast tokenizer corrupt": (
        lambda folder: [
            (folder / "tokenizer/vocab.json").unlink(),
            (folder / "tokenizer/tokenizer.json").write_text("{"),
        ],
        "tokenizer.json is not valid JSON",
    ),
    "scheduler missing": (
        _remove("scheduler/scheduler_config.json"),
        "scheduler_config.json does not exist",
    ),
    "scheduler not JSON": (_write("scheduler/scheduler_config.json", b"?"), "is not valid JSON"),
    "scheduler without name": (
        lambda folder: [
            change_json(folder / "scheduler/scheduler_config.json", _class_name=...),
            change_json(folder / "model_index.json", scheduler=...),
        ],
        "scheduler_config.json lacks '_class_name'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_folders(folder: Path, case: str) -> None:
    damage, expected = BROKEN[case]
    damage(folder)
    assert len(str(_refusal(folder, expected)).splitlines()) <= 2
