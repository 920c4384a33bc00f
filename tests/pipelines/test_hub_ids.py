"""Every part of a pipeline that may be named by a Hub id, from the Hub's cache, offline."""

import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from huggingface_hub import constants
from safetensors.numpy import save_file

from hotshot_jax.convert.formats.temporal_layers import write_temporal_layers
from hotshot_jax.convert.prepare import component_source, open_checkpoint
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.unet.encoder_config import TemporalShape
from hotshot_jax.pipelines import HotshotXLPipeline
from tests.cli.checkpoints import change_tensors, write_hub_cache
from tests.lora_files import factors, is_spatial, write_lora
from tests.tiny_controlnet import write_tiny_controlnet

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def parts(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Local folders, as the repositories of each part hold them."""
    root = tmp_path_factory.mktemp("parts")
    shutil.copytree(tiny_checkpoint / "vae", root / "vae")
    change_tensors(
        root / "vae" / WEIGHTS,
        lambda t: t.update({"decoder.conv_out.bias": -t["decoder.conv_out.bias"]}),
    )
    (root / "temporal").mkdir()
    write_temporal_layers(
        component_source(open_checkpoint(tiny_checkpoint).unet),
        TemporalShape(),
        "hotshot",
        root / "temporal" / "hsxl_temporal_layers.safetensors",
    )
    (root / "lora").mkdir()
    lora = factors(tiny_checkpoint, choose=is_spatial)
    write_lora(root / "lora" / "pytorch_lora_weights.safetensors", lora)
    (root / "style").mkdir()
    random = np.random.default_rng(0)
    vectors = {
        key: random.standard_normal((1, width), np.float32)
        for key, width in {"clip_l": 24, "clip_g": 40}.items()
    }
    save_file(vectors, root / "style" / "learned_embeds.safetensors")
    write_tiny_controlnet(root / "controlnet", 1)
    return {path.name: path for path in root.iterdir()}


def load(checkpoint: Path, where: dict[str, str]) -> list[np.ndarray]:
    """All parameters of a pipeline whose parts come from there."""
    components = HotshotXLPipeline.from_pretrained(
        str(checkpoint),
        precision="f32",
        vae=where["vae"],
        temporal=where["temporal"],
        loras=[(where["lora"], 0.5)],
        embeddings=[(where["style"], "<s>")],
        controlnets=[where["controlnet"]],
    ).components
    names = ("unet", "vae", "text_encoder", "text_encoder_2", "controlnets.0")
    return [np.asarray(leaf) for name in names for leaf in jax.tree.leaves(components.model(name))]


def test_cached_parts_are_the_local_ones(
    tiny_checkpoint: Path,
    parts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, folder in parts.items():
        write_hub_cache(folder, tmp_path / "hub", f"someone/{name}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    cached = load(tiny_checkpoint, {name: f"someone/{name}" for name in parts})
    local = load(tiny_checkpoint, {name: str(folder) for name, folder in parts.items()})
    for one, other in zip(cached, local, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("part", ["vae", "temporal", "lora", "style", "controlnet"])
def test_what_is_not_cached_is_named(
    tiny_checkpoint: Path,
    parts: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    part: str,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    where = {name: str(folder) for name, folder in parts.items()} | {part: f"someone/{part}"}
    with pytest.raises(HotshotError, match=f"someone/{part}"):
        load(tiny_checkpoint, where)
