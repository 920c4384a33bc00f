"""`infer.py` given what it cannot use: each refusal says what is wrong, where, and what to do.

In the order in which a run meets them: the numbers, the output, the model's folder and its files,
the device, the cache of compiled programs. Prompts that are empty or too long are legal and among
the tests of good input.
"""

import errno
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants

from hotshot_jax.convert import load
from hotshot_jax.media import output
from hotshot_jax.pipelines.runtime import Runtime
from tests.cli.checkpoints import (
    TEXT,
    TEXT_2,
    UNET,
    VAE,
    Tensors,
    change_json,
    change_tensors,
    copy_of,
    everything,
    read_tensors,
    replace,
    write_hub_cache,
    write_shards,
    write_tensors,
)
from tests.cli.conftest import Infer
from tests.cli.processes import ROOT, infer_command
from tests.cli.refusals import assert_refused, assert_refused_at_once

NUMBERS = {
    "width not a multiple of 8": (["--width", "100"], "--width is 100; expected a multiple of 8"),
    "height not a multiple of 8": (["--height", "20"], "--height is 20; expected a multiple of 8"),
    "width zero": (["--width", "0"], "--width is 0"),
    "height negative": (["--height", "-8"], "--height is -8"),
    "width absurdly large": (["--width", "800000"], "to 4096"),
    "height past any integer": (["--height", str(2**70)], "to 4096"),
    "width no number": (["--width", "wide"], "--width: invalid int value: 'wide'"),
    "aspect ratio unknown": (["--aspect_ratio", "7"], "--aspect_ratio"),
    "aspect ratio and size": (
        ["--aspect_ratio", "1.75", "--width", "16"],
        "--aspect_ratio sets width and height",
    ),
    "video_length 0": (["--video_length", "0"], "--video_length is 0; expected 1 to 24"),
    "video_length -1": (["--video_length", "-1"], "--video_length is -1; expected 1 to 24"),
    "video_length 25": (["--video_length", "25"], "--video_length is 25; expected 1 to 24"),
    "video_length 10000": (
        ["--video_length", "10000"],
        "--video_length is 10000; expected 1 to 24",
    ),
    "video_duration 0": (["--video_duration", "0"], "--video_duration is 0"),
    "video_duration too short": (["--video_duration", "159"], "from 160 (20 a frame)"),
    "video_duration negative": (["--video_duration", "-1000"], "--video_duration is -1000"),
    "video_duration of a clip of one frame": (
        ["--video_length", "1", "--video_duration", "0"],
        "--video_duration is 0",
    ),
    "video_duration too long": (["--video_duration", "10000000"], "to 5242800"),
    "steps 0": (["--steps", "0"], "--steps is 0; expected 1 to 1000"),
    "steps -1": (["--steps", "-1"], "--steps is -1; expected 1 to 1000"),
    "steps 1001": (["--steps", "1001"], "--steps is 1001; expected 1 to 1000"),
    "guidance NaN": (["--guidance_scale", "nan"], "--guidance_scale is nan; expected a number"),
    "guidance inf": (["--guidance_scale", "inf"], "--guidance_scale is inf; expected a number"),
    "guidance negative": (["--guidance_scale", "-1"], "--guidance_scale is -1.0"),
    "guidance_rescale past 1": (["--guidance_rescale", "1.5"], "--guidance_rescale is 1.5"),
    "eta past 1": (["--eta", "2"], "--eta is 2.0; expected a number from 0 to 1"),
    "clip_skip negative": (["--clip_skip", "-1"], "--clip_skip is -1"),
    "clip_skip past the encoder": (["--clip_skip", "12"], "--clip_skip is 12; expected 0 to 11"),
    "original size": (["--og_width", "-5"], "--og_width or --og_height is -5"),
    "target size": (["--target_height", "-5"], "--target_width or --target_height is -5"),
    "seed negative": (["--seed", "-1"], "--seed is -1; expected a whole number from 0 to 2**64"),
    "seed past 64 bits": (["--seed", str(2**64)], "--seed is 18446744073709551616"),
    "seed text": (["--seed", "lucky"], "--seed: invalid int value: 'lucky'"),
    "num_videos 0": (["--num_videos", "0"], "--num_videos is 0; expected 1 to 1000"),
    "num_videos absurd": (["--num_videos", "1000000000"], "expected 1 to 1000"),
    "precision unknown": (["--precision", "f8"], "--precision: invalid choice: 'f8'"),
    "flag unknown": (["--step", "5"], "unrecognized arguments: --step 5; did you mean --steps?"),
    "flag without a value": (["--prompt"], "--prompt: expected one argument"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers(infer: Infer, tmp_path: Path, case: str) -> None:
    flags, expected = NUMBERS[case]
    assert_refused_at_once(infer(*flags), 2, expected)
    assert everything(tmp_path) == {}


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("eulr", "euler"), ("EulerAncestral", "euler_ancestral"), ("dpm++2m", "dpm")],
)
def test_unknown_schedulers(infer: Infer, name: str, nearest: str) -> None:
    run = infer("--scheduler", name)
    assert_refused_at_once(run, 2, f"--scheduler {name}", "dpmpp_2m_karras")
    assert run.stderr.partition("nearest first: ")[2].startswith(nearest)


def test_prompts_files(infer: Infer, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.txt"
    for content, expected in (
        (None, "No such file"),
        (b"", "holds no prompt"),
        (b" \n\n", "holds no prompt"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ):
        if content is not None:
            prompts.write_bytes(content)
        run = infer("--prompts_file", prompts)
        assert_refused_at_once(run, 2, f"--prompts_file {prompts}", expected)


def test_an_output_in_a_missing_folder_is_made(infer: Infer, tmp_path: Path) -> None:
    assert infer("--output", tmp_path / "new" / "deep" / "a.gif").status == 0
    assert list(everything(tmp_path)) == ["new", "new/deep", "new/deep/a.gif"]


def test_an_output_that_is_not_writable(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    # The superuser, as whom tests often run, may write everywhere.
    monkeypatch.setattr(output.os, "open", refuse)
    path = tmp_path / "a.gif"
    assert_refused_at_once(infer("--output", path), 2, f"--output {path}", "Permission denied")
    monkeypatch.undo()
    assert everything(tmp_path) == {}


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_an_output_on_a_file_system_that_refuses_files(infer: Infer) -> None:
    assert_refused_at_once(infer("--output", "/proc/a.gif"), 2, "--output /proc/a.gif")


def test_outputs_that_are_something_else(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "folder.gif").mkdir()
    (tmp_path / "file").write_bytes(b"before")
    (tmp_path / "old.gif").write_bytes(b"before")
    before = everything(tmp_path)
    for name, expected in (
        ("folder.gif", "is a folder"),
        ("file", "is a file"),
        ("file/a.gif", "is a file"),
        ("old.gif", "--overwrite to replace it"),
        ("a.avi", "unknown ending .avi. Give .gif, .mp4, .webp"),
        ("a.png", "holds one frame, but --video_length is 8"),
        (f"{'a' * 300}.gif", "File name too long"),
    ):
        assert_refused_at_once(infer("--output", tmp_path / name), 2, "--output", name, expected)
    assert_refused_at_once(infer("--output", ""), 2, "--output is ''")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["a.gif", "a/"])
def test_a_disk_that_is_full_while_writing(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / name
    old = path if path.suffix else path / "frame_0000.png"
    old.parent.mkdir(exist_ok=True)
    old.write_bytes(b"before")
    before = everything(tmp_path)

    def half_written(file: Path, data: bytes) -> int:
        with file.open("wb") as stream:
            stream.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", half_written)
    run = infer("--output", f"{tmp_path}/{name}", "--overwrite")
    monkeypatch.undo()
    assert_refused(run, 1, f"{path} could not be written: No space left on device", "is unchanged")
    assert everything(tmp_path) == before


def test_mp4_without_ffmpeg(infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    run = infer("--output", tmp_path / "a.mp4")
    assert_refused_at_once(run, 1, "ffmpeg", "was not found")
    assert everything(tmp_path) == {}


def test_models_that_are_not_there(infer: Infer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_bytes(b"x")
    before = everything(tmp_path)
    for path, status, expected in (
        (tmp_path / "missing", 2, "does not exist; expected a path on this machine, or a repos"),
        ("", 2, "is empty; expected a path"),
        ("~nobody-of-this-name/model", 2, "does not exist"),
        ("a" * 5000, 2, "does not exist"),
        (f"{'a' * 300}/b", 2, "is neither an existing path nor a valid Hub id"),
        (tmp_path / "file", 2, "is a file; expected a Hotshot-XL checkpoint"),
        (tmp_path / "empty", 1, "is an empty folder; expected a Hotshot-XL checkpoint"),
        (tmp_path / "other", 1, "has no model_index.json (it holds notes.txt)"),
    ):
        run = infer("--pretrained_path", path, "--output", tmp_path / "a.gif")
        assert_refused_at_once(run, status, expected)
    assert everything(tmp_path) == before


def test_a_hub_id_offline_and_not_cached(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    run = infer("--pretrained_path", "hotshotco/Hotshot-XL")
    assert_refused_at_once(
        run, 1, "hotshotco/Hotshot-XL is not in the cache", "HF_HUB_OFFLINE is set; unset it"
    )


def test_a_hub_id_that_is_cached_works(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = write_hub_cache(tiny_checkpoint, tmp_path / "hub", "hotshotco/tiny")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert infer("--pretrained_path", "hotshotco/tiny").status == 0
    (snapshot / "vae" / "config.json").unlink()
    run = infer("--pretrained_path", "hotshotco/tiny", "--overwrite")
    assert_refused_at_once(run, 1, "vae/config.json does not exist; download the model again")


def _stable_diffusion(folder: Path) -> None:
    for name in ("text_encoder_2", "tokenizer_2"):
        shutil.rmtree(folder / name)
    change_json(
        folder / "model_index.json",
        _class_name="StableDiffusionPipeline",
        unet=["diffusers", "UNet2DConditionModel"],
        text_encoder_2=...,
        tokenizer_2=...,
    )
    change_json(folder / "unet" / "config.json", cross_attention_dim=768, addition_embed_type=...)


def _refiner(folder: Path) -> None:
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


def _flux(folder: Path) -> None:
    (folder / "unet").rename(folder / "transformer")
    change_json(
        folder / "model_index.json",
        _class_name="FluxPipeline",
        unet=...,
        transformer=["diffusers", "FluxTransformer2DModel"],
    )


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
        _stable_diffusion,
        ("is Stable Diffusion 1.5", "expected a Hotshot-XL"),
    ),
    "refiner": (_refiner, ("is the SDXL refiner", "expected a Hotshot-XL")),
    "Flux": (_flux, ("is a Flux model", "expected a Hotshot-XL")),
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
    assert_refused(run, 1, "single colour", "a.gif was not written")
    assert not (tmp_path / "out").exists()


def test_an_accelerator_that_is_not_there() -> None:
    # In a process of its own: a platform that was tried stays tried.
    script = (
        "from hotshot_jax.cli.infer import main\n"
        "for device in ('tpu', 'gpu'):\n"
        "    print(main(['--device', device, '--output', 'never.gif']))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "JAX_PLATFORMS"}
    finished = subprocess.run(
        [sys.executable, "-c", script], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    for device in ("tpu", "gpu"):
        if any(each.platform == device for each in jax.local_devices()):
            pytest.skip(f"this machine has a {device}")
    assert finished.stdout.split() == ["1", "1"], finished.stderr
    assert "Traceback" not in finished.stderr
    for device in ("tpu", "gpu"):
        assert f"--device {device} cannot be used: it is not there" in finished.stderr
    assert "--device cpu always works" in finished.stderr
    assert not (ROOT / "never.gif").exists()


def _out_of_memory(*_: object, **__: object) -> Any:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.")


def test_out_of_device_memory(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ways_out = "--low_vram_mode; a smaller --width, --height or --video_length; --precision"
    monkeypatch.setattr(Runtime, "program", lambda *_, **__: _out_of_memory)
    assert_refused(infer(), 1, "out of memory: weights 9 MiB (text_encoder 0 MiB", ways_out)
    monkeypatch.setattr(load, "_place", _out_of_memory)
    assert_refused(infer(), 1, "out of memory: weights 9 MiB.", ways_out)
    assert everything(tmp_path) == {}


def test_out_of_main_memory(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> Any:
        raise MemoryError

    monkeypatch.setattr(Runtime, "program", no_memory)
    assert_refused(infer(), 1, "Out of main memory")


def test_other_errors_of_jax_are_not_hidden(infer: Infer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> Any:
        raise jax.errors.JaxRuntimeError("INTERNAL: something broke")

    monkeypatch.setattr(Runtime, "program", fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something broke"):
        infer()


def test_a_cache_of_compiled_programs_that_cannot_be_written(
    infer: Infer, tmp_path: Path, compilation_cache: Path
) -> None:
    (tmp_path / "file").write_bytes(b"before")
    run = infer("--compilation_cache", tmp_path / "file")
    assert run.status == 0
    assert f"cannot be kept in {tmp_path / 'file'}" in run.stderr
    assert "--compilation_cache names another folder" in run.stderr
    assert (tmp_path / "file").read_bytes() == b"before"
    assert_refused_at_once(infer("--compilation_cache", "", "--overwrite"), 2, "is empty")


def test_a_corrupt_cache_of_compiled_programs(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path, compilation_cache: Path
) -> None:
    assert infer("--output", tmp_path / "before").status == 0
    # In place, since the names of compiled programs depend on where they lie. The two large ones
    # are left whole for the sake of time.
    for file in compilation_cache.glob("jit_[!ds]*"):
        file.write_bytes(b"garbage")
    command = infer_command(tiny_checkpoint, compilation_cache, "--output", str(tmp_path / "after"))
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("Error reading persistent compilation cache entry") == 1
    assert f"--compilation_cache {compilation_cache}" in finished.stderr
    encoders = [file.read_bytes() for file in compilation_cache.glob("jit_encode-*-cache")]
    assert encoders
    assert b"garbage" not in encoders
    assert everything(tmp_path / "before") == everything(tmp_path / "after")
