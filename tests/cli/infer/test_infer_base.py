"""Models from several places: other spatial layers, temporal layers, VAEs, and single files."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax import clip_tokenizer
from hotshot_jax.convert.tensors.tensor_source import open_file
from tests.cli.checkpoints import (
    TEXT,
    TEXT_2,
    UNET,
    VAE,
    change_tensors,
    read_tensors,
    replace,
    write_tensors,
)
from tests.cli.conftest import Infer
from tests.cli.infer.test_infer import pngs_of
from tests.cli.refusals import assert_refused, assert_refused_at_once
from tests.other_models import change_json
from tests.single_file_writer import to_single_file
from tests.tiny_checkpoint import tiny_configs, write_tiny_checkpoint

FILES = {"unet": UNET, "vae": VAE, "text_encoder": TEXT, "text_encoder_2": TEXT_2}
SPELLINGS = ("hotshot", "comfyui", "diffusers")


def is_spatial(name: str) -> bool:
    return ".temporal_attentions." not in name


def shaped_as_sdxl() -> dict[str, Any]:
    """Configurations that follow from shapes as SDXL's do: heads of 64, CLIP's vocabulary."""
    configs = tiny_configs()
    configs["unet"] |= {
        "block_out_channels": [64, 128],
        "attention_head_dim": [1, 2],
        "cross_attention_dim": 128,
    }
    for name in ("text_encoder", "text_encoder_2"):
        configs[name] |= {
            "hidden_size": 64,
            "num_attention_heads": 1,
            "vocab_size": 49408,
            "eos_token_id": 2,
        }
    return configs


@pytest.fixture(scope="module")
def hotshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hotshot-XL checkpoint with the shapes of SDXL's rules and CLIP's tokenizers."""
    folder = tmp_path_factory.mktemp("base") / "hotshot"
    write_tiny_checkpoint(folder, configs=shaped_as_sdxl())
    for name in ("tokenizer", "tokenizer_2"):
        shutil.rmtree(folder / name)
        shutil.copytree(clip_tokenizer.FOLDER, folder / name)
    change_json(folder / "tokenizer_2" / "tokenizer_config.json", pad_token="!")
    return folder


@pytest.fixture(scope="module")
def sdxl(hotshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plain SDXL folder with other weights."""
    folder = tmp_path_factory.mktemp("base") / "sdxl"
    shutil.copytree(hotshot, folder)

    def other(tensors: dict[str, np.ndarray]) -> None:
        for name in [name for name in tensors if not is_spatial(name)]:
            del tensors[name]
        for name in tensors:
            if tensors[name].ndim > 1:
                tensors[name] = tensors[name][::-1]

    for file in FILES.values():
        change_tensors(folder / file, other)
    config = json.loads((folder / "unet/config.json").read_text())
    plain = json.dumps(config | {"_class_name": "UNet2DConditionModel"}).replace("3D", "2D")
    replace(folder / "unet/config.json", plain.encode())
    return folder


@pytest.fixture(scope="module")
def single(sdxl: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same SDXL in one file."""
    file = tmp_path_factory.mktemp("single") / "model.safetensors"
    joined = to_single_file({name: open_file(sdxl / each) for name, each in FILES.items()})
    write_tensors(file, {name: np.array(joined.read(name)) for name in joined})
    return file


def frames(infer: Infer, out: Path, *flags: str | Path) -> np.ndarray:
    run = infer("--output", out, *flags)
    assert run.status == 0, run.stderr
    return pngs_of(out)


@pytest.fixture
def expected(infer: Infer, hotshot: Path, sdxl: Path, tmp_path: Path) -> np.ndarray:
    """The picture of a checkpoint whose files were joined by hand."""
    folder = tmp_path / "joined"
    shutil.copytree(sdxl, folder)
    temporal = {k: v for k, v in read_tensors(hotshot / UNET).items() if not is_spatial(k)}
    change_tensors(folder / UNET, lambda tensors: tensors.update(temporal))
    shutil.copy(hotshot / "unet/config.json", folder / "unet/config.json")
    return frames(infer, tmp_path / "expected", "--pretrained_path", folder)


@pytest.mark.slow
def test_every_road_to_the_same_model(
    infer: Infer,
    convert: Infer,
    hotshot: Path,
    sdxl: Path,
    single: Path,
    expected: np.ndarray,
    tmp_path: Path,
) -> None:
    layers = {name: tmp_path / f"{name}.safetensors" for name in SPELLINGS}
    layers["diffusers"] = tmp_path / "adapter"
    for name, path in layers.items():
        assert convert("--temporal", name, hotshot, path).status == 0
    converted = tmp_path / "converted"
    assert convert(hotshot, converted).status == 0
    roads: list[tuple[str | Path, ...]] = [
        ("--pretrained_path", hotshot, "--base", sdxl),
        ("--pretrained_path", converted, "--base", single),
        ("--pretrained_path", sdxl, "--temporal", hotshot),
        *(("--pretrained_path", single, "--temporal", path) for path in layers.values()),
    ]
    for index, road in enumerate(roads):
        assert (frames(infer, tmp_path / str(index), *road) == expected).all(), road


@pytest.mark.slow
def test_spatial_layers_alone(
    infer: Infer, hotshot: Path, sdxl: Path, single: Path, expected: np.ndarray, tmp_path: Path
) -> None:
    """The UNet of one model, encoders and VAE of the other; the VAE too by its own flag."""
    start = ("--pretrained_path", hotshot)
    own = frames(infer, tmp_path / "own", *start)
    by_folder, by_component, by_file = (
        frames(infer, tmp_path / name, *start, "--spatial_unet_base", path)
        for name, path in (("a", sdxl), ("b", sdxl / "unet"), ("c", single))
    )
    assert (by_folder == by_component).all()
    assert (by_folder == by_file).all()
    assert (by_folder != own).any()
    assert (by_folder != expected).any()
    vaes = [
        frames(infer, tmp_path / name, *start, "--vae", path)
        for name, path in (("d", sdxl), ("e", sdxl / "vae"), ("f", single))
    ]
    assert (vaes[0] != own).any()
    assert all((vae == vaes[0]).all() for vae in vaes)


def test_marker_keys_switch_the_scheduler(
    infer: Infer, hotshot: Path, single: Path, tmp_path: Path
) -> None:
    file = tmp_path / "v.safetensors"
    markers = {name: np.zeros(0, np.float32) for name in ("v_pred", "ztsnr")}
    write_tensors(file, read_tensors(single) | markers)
    flags = ("--pretrained_path", hotshot, "--scheduler", "euler")
    plain = frames(infer, tmp_path / "plain", *flags, "--base", single)
    run = infer("--output", tmp_path / "v", *flags, "--base", file)
    assert run.status == 0
    assert "prediction_type = v_prediction" in run.stderr
    assert (pngs_of(tmp_path / "v") != plain).any()
    assert "timestep_spacing = trailing" in run.stderr
    # The same said on the command line, of the file that does not say it.
    said = ("--prediction_type", "v_prediction", "--zero_terminal_snr")
    assert (
        frames(infer, tmp_path / "said", *flags, "--base", single, *said) == pngs_of(tmp_path / "v")
    ).all()


def test_models_of_other_noise_levels_are_refused(
    infer: Infer, hotshot: Path, single: Path, tmp_path: Path
) -> None:
    file = tmp_path / "edm.safetensors"
    markers = {f"edm_vpred.sigma_{end}": np.ones((), np.float32) for end in ("max", "min")}
    write_tensors(file, read_tensors(single) | markers)
    run = infer("--pretrained_path", file, "--temporal", hotshot)
    assert_refused_at_once(run, 1, str(file), "is an EDM model")


def test_what_does_not_fit_is_refused(
    infer: Infer, hotshot: Path, sdxl: Path, single: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    start = ("--pretrained_path", hotshot)
    vae = tmp_path / "vae.safetensors"
    write_tensors(vae, read_tensors(sdxl / VAE))
    empty = tmp_path / "empty.safetensors"
    empty.touch()
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"\x80\x04cposix\nsystem\n")
    for status, flags, said in (
        (1, ("--pretrained_path", single), "--temporal"),
        (1, ("--pretrained_path", sdxl), "--temporal"),
        (1, (*start, "--temporal", tiny_checkpoint), "another model"),
        (1, (*start, "--temporal", sdxl / UNET), "no temporal layers"),
        (1, (*start, "--temporal", empty), "empty"),
        (1, (*start, "--spatial_unet_base", vae), "holds no UNet"),
        (1, ("--pretrained_path", vae, "--temporal", hotshot), "holds no unet"),
        (1, (*start, "--spatial_unet_base", tiny_checkpoint), "another model"),
        (1, (*start, "--base", pickle), "use a .safetensors file"),
        (1, (*start, "--vae", tmp_path), "config.json"),
        (2, (*start, "--base", tmp_path / "missing"), "missing"),
        (2, (*start, "--temporal", tmp_path / "missing.safetensors"), "missing"),
    ):
        assert_refused_at_once(infer(*flags), status, said)
    assert not (tmp_path / "out.gif").exists()


def test_convert_refuses_what_it_cannot_write(
    convert: Infer, hotshot: Path, sdxl: Path, tmp_path: Path
) -> None:
    (tmp_path / "there.safetensors").touch()
    for status, arguments, said in (
        (2, ("comfyui", hotshot, tmp_path / "folder"), "ends in .safetensors"),
        (2, ("diffusers", hotshot, tmp_path / "a.safetensors"), "expected a folder"),
        (2, ("hotshot", hotshot, tmp_path / "there.safetensors"), "exists already"),
        (1, ("hotshot", sdxl, tmp_path / "b.safetensors"), "no temporal layers"),
    ):
        assert_refused(convert("--temporal", *arguments), status, said)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.safetensors"]
