"""Opening a checkpoint folder, in all of its spellings."""

import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoint_folders import (
    CONFIGS,
    GOLDEN,
    STEMS,
    TEMPORAL,
    tensors,
    write_checkpoint,
    write_json,
    write_shards,
)
from safetensors.numpy import save_file

from hotshot_jax.convert.formats.diffusers_folder import open_component, open_diffusers_folder
from hotshot_jax.errors import HotshotError, UsageError
from tests.other_models import change_json


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("library", ["hotshot_xl", "hotshot_xl.models.unet", "diffusers"])
def test_whole_folder(tmp_path: Path, library: str) -> None:
    path = write_checkpoint(tmp_path / "hotshot", unet_library=library)
    before = snapshot(path)
    opened = open_diffusers_folder(str(path))
    assert opened.path == path
    assert opened.index["force_zeros_for_empty_prompt"] is True
    assert opened.notes == ()
    assert opened.scheduler_config["_class_name"] == "EulerAncestralDiscreteScheduler"
    assert opened.scheduler_config["beta_start"] == 0.00085
    assert (opened.tokenizer, opened.tokenizer_2) == (path / "tokenizer", path / "tokenizer_2")
    assert [component.name for component in opened.components] == list(CONFIGS)
    for component in opened.components:
        assert component.config == json.loads(component.config_path.read_text())
        assert component.path == path / component.name
        assert component.has_temporal_layers == (component.name == "unet")
        for name, value in tensors(component.name).items():
            np.testing.assert_array_equal(component.tensors.read(name), value, strict=True)
    expected = sum(each.nbytes for name in CONFIGS for each in tensors(name).values())
    assert opened.nbytes == expected
    assert snapshot(path) == before


def test_hub_cache_links_and_read_only_files(folder: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(p for p in folder.rglob("*") if p.is_file())):
        path.rename(blobs / str(number))
        (blobs / str(number)).chmod(0o444)
        path.symlink_to(os.path.relpath(blobs / str(number), path.parent))
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir():
            path.chmod(0o555)
    try:
        assert open_diffusers_folder(folder).unet.has_temporal_layers
        (blobs / "0").unlink()  # The first in order: model_index.json.
        with pytest.raises(HotshotError, match=r"model_index.json is a link .* download"):
            open_diffusers_folder(folder)
    finally:
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o755)


SHARD_SPELLINGS = [
    (None, "{stem}.safetensors.index.json", "{stem}-0000{n}-of-00002.safetensors"),
    ("fp16", "{stem}.safetensors.index.fp16.json", "{stem}.fp16-0000{n}-of-00002.safetensors"),
    ("fp16", "{stem}.fp16.safetensors.index.json", "{stem}-0000{n}-of-00002.fp16.safetensors"),
    ("fp16", "{stem}.fp16.safetensors.index.json", "{stem}.fp16-0000{n}-of-00002.safetensors"),
    ("non_ema", "{stem}.safetensors.index.non_ema.json", "{stem}.non_ema-{n}-of-2.safetensors"),
]


@pytest.mark.parametrize(("variant", "index", "shard"), SHARD_SPELLINGS)
@pytest.mark.parametrize("component", ["unet", "text_encoder_2"])
def test_sharded_weights(
    folder: Path, component: str, variant: str | None, index: str, shard: str
) -> None:
    stem = STEMS[component]
    names = (shard.format(stem=stem, n=1), shard.format(stem=stem, n=2))
    write_shards(folder / component, names, index.format(stem=stem), tensors(component))
    opened = getattr(open_diffusers_folder(folder, variant=variant), component)
    assert opened.variant == variant
    assert set(opened.tensors) == set(tensors(component))
    opened = getattr(open_diffusers_folder(folder), component)
    assert set(opened.tensors) == set(tensors(component))
    assert len(opened.notes) == (variant is not None)


def test_of_two_indexes_the_one_whose_shards_are_there_is_taken(folder: Path) -> None:
    unet = folder / "unet"
    stem = STEMS["unet"]
    names = (f"{stem}-1-of-2.fp16.safetensors", f"{stem}-2-of-2.fp16.safetensors")
    write_shards(unet, names, f"{stem}.safetensors.index.fp16.json", tensors("unet"))
    stale = {"weight_map": dict.fromkeys(tensors("unet"), f"{stem}.fp16-1-of-1.safetensors")}
    write_json(unet / f"{stem}.fp16.safetensors.index.json", stale)
    assert set(open_component(unet, "unet").tensors) == set(tensors("unet"))


def test_shards_without_index(folder: Path) -> None:
    unet = folder / "unet"
    first, second = (f"diffusion_pytorch_model-{number}-of-2.safetensors" for number in (1, 2))
    write_shards(unet, (first, second), "index.json", tensors("unet"))
    opened = open_component(unet, "unet")
    assert set(opened.tensors) == set(tensors("unet"))
    assert "no index" in opened.notes[0]
    (unet / second).unlink()
    with pytest.raises(HotshotError, match="neither all shards nor their index"):
        open_component(unet, "unet")


def add_variant(folder: Path, component: str, variant: str, dtype: Any, keep: bool = True) -> None:
    plain = folder / component / f"{STEMS[component]}.safetensors"
    save_file(
        tensors(component, dtype), plain.with_name(f"{STEMS[component]}.{variant}.safetensors")
    )
    if not keep:
        plain.unlink()


def test_variants_are_preferred_as_asked(folder: Path) -> None:
    for component in CONFIGS:
        add_variant(folder, component, "fp16", np.float16)
        add_variant(folder, component, "bf16", ml_dtypes.bfloat16)
    for variant, dtype in ((None, "float32"), ("fp16", "float16"), ("bf16", "bfloat16")):
        opened = open_diffusers_folder(folder, variant=variant)
        assert {each.variant for each in opened.components} == {variant}
        assert opened.unet.tensors.dtype(TEMPORAL) == dtype
        assert opened.notes == ()


def test_another_variant_is_taken_and_said(folder: Path) -> None:
    add_variant(folder, "unet", "fp16", np.float16, keep=False)
    opened = open_diffusers_folder(folder)
    assert opened.unet.variant == "fp16"
    assert opened.notes == (
        f"{folder / 'unet'}: no weights without a variant, using those of 'fp16'",
    )
    opened = open_diffusers_folder(folder, variant="fp16")
    assert opened.vae.variant is None
    assert len(opened.notes) == 3
    assert f"{folder / 'vae'}: no weights of 'fp16', using those without a variant" in opened.notes


def test_variant_that_is_nowhere(folder: Path) -> None:
    add_variant(folder, "unet", "fp16", np.float16, keep=False)
    with pytest.raises(UsageError, match="no weights of the variant 'fp61'; found: fp16, without"):
        open_diffusers_folder(folder, variant="fp61")


def test_other_components_are_ignored_with_a_note(folder: Path) -> None:
    change_json(
        folder / "model_index.json",
        safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"],
        image_encoder=[None, None],
        feature_extractor=["transformers", "CLIPImageProcessor"],
        add_watermarker=None,
    )
    (folder / "vae_1_0").mkdir()
    (folder / "unet" / "model.onnx").write_bytes(b"")
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x02")
    (folder / "unet" / "diffusion_flax_model.msgpack").write_bytes(b"")
    (note,) = open_diffusers_folder(folder).notes
    assert note.endswith("does not use: safety_checker, feature_extractor")


def test_component_alone(folder: Path) -> None:
    assert open_component(folder / "unet", "unet").path == folder / "unet"
    assert open_component(folder, "unet").path == folder / "unet"
    assert open_component(folder, "vae").config["scaling_factor"] == 0.13025


def test_plain_sdxl(folder: Path) -> None:
    config = GOLDEN / "models" / "sdxl_full.unet2d.config.json"
    shutil.copyfile(config, folder / "unet" / "config.json")
    spatial = {name: value for name, value in tensors("unet").items() if name != TEMPORAL}
    save_file(spatial, folder / "unet" / "diffusion_pytorch_model.safetensors")
    change_json(
        folder / "model_index.json",
        _class_name="StableDiffusionXLPipeline",
        unet=["diffusers", "UNet2DConditionModel"],
    )
    with pytest.raises(HotshotError, match=r"plain SDXL model .*`spatial_unet_base`"):
        open_diffusers_folder(folder)
    assert not open_diffusers_folder(folder, require_temporal=False).unet.has_temporal_layers


def test_hotshot_without_temporal_weights(folder: Path) -> None:
    spatial = {name: value for name, value in tensors("unet").items() if name != TEMPORAL}
    save_file(spatial, folder / "unet" / "diffusion_pytorch_model.safetensors")
    with pytest.raises(HotshotError, match=r"unet: the weights hold no temporal layers though"):
        open_diffusers_folder(folder)


def test_payload_of_a_pickle_is_never_run(folder: Path, tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "executed"),)

    content = pickle.dumps(Payload())
    unet = folder / "unet"
    (unet / "diffusion_pytorch_model.bin").write_bytes(content)
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(HotshotError, match=r"diffusion_pytorch_model.bin \(PyTorch pickle\) but"):
        open_diffusers_folder(folder)
    (unet / "diffusion_pytorch_model.safetensors").write_bytes(content)
    with pytest.raises(HotshotError, match=r"Python pickle, which can run code"):
        open_diffusers_folder(folder)
    assert not (tmp_path / "executed").exists()


def test_scheduler_named_by_the_index_alone(folder: Path) -> None:
    change_json(folder / "scheduler/scheduler_config.json", _class_name=...)
    config = open_diffusers_folder(folder).scheduler_config
    assert config["_class_name"] == "EulerAncestralDiscreteScheduler"


def test_fast_tokenizer_files_alone_are_enough(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"}')
    assert open_diffusers_folder(folder).tokenizer == folder / "tokenizer"
