"""`infer.py --lora`: what it says, what it changes, and what it refuses."""

import json
from pathlib import Path

import numpy as np
import pytest

from hotshot_jax.media.metadata import read_metadata
from tests.cli.conftest import Infer
from tests.cli.infer.test_infer import pngs_of
from tests.cli.refusals import assert_refused_at_once
from tests.lora_files import Tensors, factors, is_spatial, write_lora


@pytest.fixture(scope="module")
def tensors(tiny_checkpoint: Path) -> Tensors:
    return factors(tiny_checkpoint, choose=is_spatial)


@pytest.fixture(scope="module")
def lora(tensors: Tensors, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "style.safetensors", tensors)


def test_scales_change_the_picture_and_zero_does_not(
    infer: Infer, plain: Path, tmp_path: Path, lora: Path
) -> None:
    for name, argument in (("off", f"{lora}:0"), ("half", f"{lora}:0.5"), ("full", f"{lora}")):
        run = infer("--output", tmp_path / name, "--lora", argument)
        assert run.status == 0
        assert "modules matched" in run.stderr
    off, half, full = (pngs_of(tmp_path / name) for name in ("off", "half", "full"))
    assert (pngs_of(plain) == off).all()
    assert (off != half).any()
    assert (half != full).any()


def test_a_folder_and_two_at_once_are_stored_in_the_result(
    infer: Infer, tmp_path: Path, lora: Path
) -> None:
    out = tmp_path / "out.webp"
    run = infer("--output", out, "--lora", f"{lora.parent}:0.5", "--lora", f"{lora}:0.25")
    assert run.status == 0
    assert run.stderr.count("modules matched") == 2
    stored = json.loads(read_metadata(out)["settings"])
    assert stored["lora"] == [f"{lora.parent.name}:0.5", f"{lora.name}:0.25"]
    again = tmp_path / "again.webp"
    flags = ("--lora", f"{lora.parent}:0.5", "--lora", f"{lora}:0.25")
    run = infer("--config", out, "--output", again, *flags)
    assert run.status == 0
    assert "was made with" not in run.stderr
    assert again.read_bytes() == out.read_bytes()


def test_keys_that_fit_nowhere(infer: Infer, tmp_path: Path, tensors: Tensors) -> None:
    strange = {"unet.nowhere.to_q.lora_A.weight": np.zeros((2, 4), np.float32)}
    file = write_lora(tmp_path / "partial.safetensors", tensors | strange)
    run = infer("--lora", file)
    assert_refused_at_once(run, 1, str(file), "unet.nowhere", "--lora_allow_partial")
    run = infer("--lora", file, "--lora_allow_partial")
    assert run.status == 0
    assert "1 keys unmatched: unet.nowhere.to_q.lora_A.weight" in run.stderr


def _only(tensors: Tensors, ending: str) -> Tensors:
    return {name: each for name, each in tensors.items() if name.endswith(ending)}


def _first(tensors: Tensors, value: np.ndarray) -> Tensors:
    return tensors | {next(iter(tensors)): value}


KOHYA = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
FLUX = "lora_unet_double_blocks_0_img_attn_proj"
CASES = {
    "half of its keys": (lambda t: _only(t, "lora_A.weight"), "incomplete"),
    "ranks that differ": (
        lambda t: _first(t, np.zeros((3, next(iter(t.values())).shape[1]), np.float32)),
        "ranks 2 and 3",
    ),
    "another width": (lambda t: _first(t, np.zeros((2, 5), np.float32)), "do not fit"),
    "NaN": (lambda t: _first(t, np.full_like(next(iter(t.values())), np.nan)), "NaN"),
    "infinite": (lambda t: _first(t, np.full_like(next(iter(t.values())), np.inf)), "NaN"),
    "alpha 0": (
        lambda t: t | {next(iter(t)).replace("lora_A.weight", "alpha"): np.zeros((), np.float32)},
        "is 0",
    ),
    "alpha NaN": (
        lambda t: (
            t | {next(iter(t)).replace("lora_A.weight", "alpha"): np.full((), np.nan, np.float32)}
        ),
        "NaN",
    ),
    "SD 1.5": (
        lambda t: {
            f"{KOHYA}.lora_{n}.weight": np.zeros((4, 4), np.float32) for n in ("up", "down")
        },
        "Stable Diffusion 1.x",
    ),
    "Flux": (
        lambda t: {f"{FLUX}.lora_{n}.weight": np.zeros((4, 4), np.float32) for n in ("up", "down")},
        "Flux",
    ),
    "no match at all": (lambda t: {"a.weight": np.zeros(3, np.float32)}, "none of its 1 keys"),
}


@pytest.mark.parametrize("case", CASES)
def test_contents_that_cannot_be_used(
    infer: Infer, tmp_path: Path, tensors: Tensors, case: str
) -> None:
    change, expected = CASES[case]
    file = write_lora(tmp_path / "bad.safetensors", change(dict(tensors)))
    assert_refused_at_once(infer("--lora", file), 1, str(file), expected)
    assert not (tmp_path / "out.gif").exists()


def test_files_that_cannot_be_used(infer: Infer, tmp_path: Path, lora: Path) -> None:
    (tmp_path / "empty.safetensors").touch()
    (tmp_path / "cut.safetensors").write_bytes(lora.read_bytes()[:-50])
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04cposix\nsystem\n(S'touch ran'\ntR.")
    (tmp_path / "page.safetensors").write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "folder").mkdir()
    for name, expected in (
        ("empty.safetensors", "empty"),
        ("cut.safetensors", "cut"),
        ("pickle.pt", "use a .safetensors file"),
        ("page.safetensors", "page"),
        ("folder", "holds no .safetensors file"),
    ):
        assert_refused_at_once(infer("--lora", tmp_path / name), 1, name, expected)
    assert not (tmp_path / "out.gif").exists()


@pytest.mark.parametrize("scale", ["strong", "nan", "inf", ""])
def test_scales_that_are_no_numbers(infer: Infer, lora: Path, scale: str) -> None:
    run = infer("--lora", f"{lora}:{scale}")
    assert_refused_at_once(run, 2, f"--lora {lora}:{scale}", "is not a scale")


def test_a_missing_file(infer: Infer, tmp_path: Path) -> None:
    run = infer("--lora", tmp_path / "missing.safetensors")
    assert_refused_at_once(run, 2, "missing.safetensors")
