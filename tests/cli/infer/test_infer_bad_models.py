"""`infer.py` given a checkpoint that it cannot use: another model, or files that are damaged.

Each refusal says what is wrong, where, and what to do. Folders that are no checkpoint at all are
among the other bad inputs.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from tests.cli.checkpoints import (
    TEXT,
    TEXT_2,
    UNET,
    VAE,
    Tensors,
    change_tensors,
    copy_of,
    read_tensors,
    replace,
    write_shards,
    write_tensors,
)
from tests.cli.conftest import Infer
from tests.cli.refusals import assert_refused, assert_refused_at_once
from tests.other_models import change_json, refiner, stable_diffusion, transformer


def _shards(missing: bool = False, renamed: bool = False) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        index = folder / f"{UNET}.index.json"
        write_shards(
            folder / UNET, "diffusion_pytorch_model-0000{n}-of-00002.safetensors", index.name
        )
        if missing:
            (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
        if renamed:
            text = index.read_text()
            replace(index, text.replace("conv_in.weight", "conv_inn.weight").encode())

    return change


def _set(file: str, **tensors: Any) -> Callable[[Path], None]:
    """Changes tensors of a file: by a function of the old value, or None to remove one."""

    def change(values: Tensors) -> None:
        for name, function in tensors.items():
            old = values.pop(name)
            if function is not None:
                values[name] = function(old)

    return lambda folder: change_tensors(folder / file, change)


def _cast(file: str, dtype: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        replace_types = {
            name: each.astype(dtype) for name, each in read_tensors(folder / file).items()
        }
        write_tensors(folder / file, replace_types)

    return change


def _header(file: str, header: bytes, length: int | None = None) -> Callable[[Path], None]:
    content = struct.pack("<Q", len(header) if length is None else length) + header
    return lambda folder: replace(folder / file, content)


def _spoil(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(old: np.ndarray) -> np.ndarray:
        old[0] = value
        return old

    return change


def _without(*names: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink()

    return change


_OVERLAPPING = (
    b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},'
    b'"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}' + bytes(12)
)

MODELS: dict[str, tuple[Callable[[Path], Any], tuple[str, ...]]] = {
    "Stable Diffusion 1.5": (
        stable_diffusion(768),
        ("is Stable Diffusion 1.5", "expected a Hotshot-XL"),
    ),
    "refiner": (refiner, ("is the SDXL refiner", "expected a Hotshot-XL")),
    "Flux": (
        transformer("FluxPipeline", "FluxTransformer2DModel"),
        ("is a Flux model", "expected a Hotshot-XL"),
    ),
    "shard missing": (_shards(missing=True), ("index.json lists", "00002-of-00002", "download")),
    "index with an unknown key": (
        _shards(renamed=True),
        ("names tensors that their files do not hold: conv_inn.weight", "download both again"),
    ),
    "truncated": (
        lambda folder: replace(folder / UNET, (folder / UNET).read_bytes()[:-100]),
        (UNET, "is cut short", "download it again"),
    ),
    "header longer than the file": (
        _header(UNET, b"{}", length=5000),
        (UNET, "is cut short", "download it again"),
    ),
    "header not JSON": (_header(VAE, b"{'a'}"), (VAE, "is not valid JSON", "download it again")),
    "overlapping offsets": (
        lambda folder: replace(
            folder / VAE, struct.pack("<Q", len(_OVERLAPPING) - 12) + _OVERLAPPING
        ),
        (VAE, "tensors 'a' and 'b' overlap", "download it again"),
    ),
    "zero bytes": (
        lambda folder: replace(folder / TEXT, b""),
        (TEXT, "is empty (zero bytes)", "download it again"),
    ),
    "Git-LFS pointer": (
        lambda folder: replace(folder / UNET, b"version https://git-lfs.github.com/spec/v1\noid"),
        (UNET, "is a Git-LFS pointer", "git lfs pull"),
    ),
    "web page": (
        lambda folder: replace(folder / TEXT_2, b"<!DOCTYPE html><html>404</html>"),
        (TEXT_2, "is a web page", "download it again"),
    ),
    "config.json invalid": (
        lambda folder: replace(folder / "vae" / "config.json", b"{"),
        ("vae/config.json is not valid JSON", "download it again"),
    ),
    "config.json lacks a field": (
        lambda folder: change_json(folder / "unet" / "config.json", block_out_channels=...),
        ("unet/config.json lacks 'block_out_channels'",),
    ),
    "config.json with an unknown block type": (
        lambda folder: change_json(
            folder / "unet" / "config.json", down_block_types=["DownBlock3D", "WarpBlock3D"]
        ),
        ("unet/config.json", "down_block_types", "WarpBlock3D"),
    ),
    "config.json with a value of another type": (
        lambda folder: change_json(folder / "vae" / "config.json", latent_channels="four"),
        ("vae/config.json: latent_channels", "expected a value of type int"),
    ),
    "config.json with an activation that is not supported": (
        lambda folder: change_json(folder / "text_encoder" / "config.json", hidden_act="relu6"),
        ("text_encoder/config.json", "hidden_act"),
    ),
    "text encoders and UNet of different widths": (
        lambda folder: change_json(folder / "unet" / "config.json", cross_attention_dim=2048),
        ("unet", "config.json"),
    ),
    "tensor of wrong shape": (
        _set(VAE, **{"quant_conv.bias": lambda old: old[:-1]}),
        ("vae", "1 of the wrong shape: quant_conv.bias [7], expected [8]"),
    ),
    "tensor missing": (_set(UNET, **{"conv_in.bias": None}), ("unet", "1 missing: conv_in.bias")),
    "integer tensors": (_cast(UNET, np.int8), (UNET, "not floating-point numbers but int8")),
    "fp8 tensors": (
        _cast(UNET, ml_dtypes.float8_e4m3fn),
        (UNET, "quantised to float8_e4m3fn", "use the float16, bfloat16 or float32 weights"),
    ),
    "tokenizer files missing": (
        _without("tokenizer/vocab.json", "tokenizer/merges.txt"),
        ("tokenizer lacks vocab.json and merges.txt", "download the tokenizer again"),
    ),
    "vocabulary corrupt": (
        lambda folder: replace(folder / "tokenizer_2" / "vocab.json", b'{"a": 0,'),
        ("tokenizer_2/vocab.json is not valid JSON", "download it again"),
    ),
    "merges corrupt": (
        lambda folder: replace(folder / "tokenizer" / "merges.txt", b"\xff\xfe"),
        ("tokenizer/merges.txt is not UTF-8", "download the tokenizer again"),
    ),
    "merges of another vocabulary": (
        lambda folder: replace(folder / "tokenizer" / "merges.txt", b"#version: 0.2\n\xc3\x9f q\n"),
        ("tokenizer", "download vocab.json, merges.txt"),
    ),
    "scheduler not JSON": (
        lambda folder: replace(folder / "scheduler" / "scheduler_config.json", b"?"),
        ("scheduler_config.json is not valid JSON",),
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models(infer: Infer, tmp_path: Path, tiny_checkpoint: Path, case: str) -> None:
    change, expected = MODELS[case]
    folder = copy_of(tiny_checkpoint, tmp_path / "model")
    change(folder)
    run = infer("--pretrained_path", folder, "--output", tmp_path / "out" / "a.gif")
    assert_refused_at_once(run, 1, *expected)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_tensors_that_are_not_finite(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path, value: float
) -> None:
    folder = copy_of(tiny_checkpoint, tmp_path / "model")
    _set(TEXT, **{"text_model.final_layer_norm.bias": _spoil(value)})(folder)
    run = infer("--pretrained_path", folder, "--output", tmp_path / "out" / "a.gif")
    assert_refused(run, 1, TEXT, "text_model.final_layer_norm.bias: 1 of", "are NaN or infinite")
    assert not (tmp_path / "out").exists()


def test_a_scheduler_configuration_that_is_not_supported(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = copy_of(tiny_checkpoint, tmp_path / "model")
    change_json(folder / "scheduler" / "scheduler_config.json", prediction_type="velocity")
    run = infer("--pretrained_path", folder)
    assert_refused(run, 1, "prediction_type", "velocity")
    change_json(folder / "scheduler" / "scheduler_config.json", _class_name="EDMEulerScheduler")
    run = infer("--pretrained_path", folder, "--scheduler", "default")
    assert_refused(run, 1, "scheduler_config.json", "EDMEulerScheduler", "--scheduler")


def test_a_result_of_one_colour_is_a_failed_run(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    folder = copy_of(tiny_checkpoint, tmp_path / "model")
    _set(VAE, **{"decoder.conv_out.weight": np.zeros_like})(folder)
    run = infer("--pretrained_path", folder, "--output", tmp_path / "out" / "a.gif")
    assert_refused(run, 1, "single colour", "checkpoint is damaged")
    assert not (tmp_path / "out").exists()
