"""Opening a checkpoint folder: its spellings, and folders that are wrong or broken."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
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
    change_json,
    tensors,
    write_checkpoint,
    write_json,
    write_shards,
)
from safetensors.numpy import save_file

from hotshot_jax.convert.diffusers_folder import open_component, open_diffusers_folder
from hotshot_jax.errors import HotshotError, UsageError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "hotshot")


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
    with pytest.raises(HotshotError, match=r"plain SDXL model .*--spatial_unet_base"):
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


def _index(folder: Path, **changes: Any) -> None:
    change_json(folder / "model_index.json", **changes)


def _stable_diffusion(width: int) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for name in ("text_encoder_2", "tokenizer_2"):
            shutil.rmtree(folder / name)
        _index(
            folder,
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


def _refiner(folder: Path) -> None:
    for name in ("text_encoder", "tokenizer"):
        shutil.rmtree(folder / name)
    _index(
        folder,
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


def _transformer(pipeline: str, transformer: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        (folder / "unet").rename(folder / "transformer")
        _index(folder, _class_name=pipeline, unet=..., transformer=["diffusers", transformer])

    return make


OTHER_MODELS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "SD 1.5": (_stable_diffusion(768), "is Stable Diffusion 1.5;"),
    "SD 2": (_stable_diffusion(1024), "is Stable Diffusion 2;"),
    "refiner": (_refiner, "is the SDXL refiner"),
    "inpainting": (
        lambda folder: change_json(folder / "unet" / "config.json", in_channels=9),
        "is an inpainting model (its UNet takes 9 channels)",
    ),
    "editing": (
        lambda folder: change_json(folder / "unet" / "config.json", in_channels=8),
        "is an image-editing model",
    ),
    "Flux": (_transformer("FluxPipeline", "FluxTransformer2DModel"), "is a Flux model"),
    "SD3": (
        _transformer("StableDiffusion3Pipeline", "SD3Transformer2DModel"),
        "is a Stable Diffusion 3 model",
    ),
    "other transformer": (
        _transformer("NewPipeline", "NewTransformer2DModel"),
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


@pytest.mark.parametrize("case", OTHER_MODELS)
def test_other_models_are_named(folder: Path, case: str) -> None:
    make, expected = OTHER_MODELS[case]
    make(folder)
    with pytest.raises(HotshotError) as caught:
        open_diffusers_folder(folder)
    message = str(caught.value)
    assert expected in message
    assert str(folder) in message
    assert "expected a Hotshot-XL checkpoint" in message


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
    with pytest.raises(HotshotError) as caught:
        open_diffusers_folder(folder)
    assert type(caught.value) is kind
    assert expected in str(caught.value)
    assert str(folder) in str(caught.value)


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
    with pytest.raises(HotshotError) as caught:
        open_diffusers_folder(folder)
    message = str(caught.value)
    assert expected in message
    assert str(folder) in message
    assert len(message.splitlines()) <= 2


def test_scheduler_named_by_the_index_alone(folder: Path) -> None:
    change_json(folder / "scheduler/scheduler_config.json", _class_name=...)
    config = open_diffusers_folder(folder).scheduler_config
    assert config["_class_name"] == "EulerAncestralDiscreteScheduler"


def test_fast_tokenizer_files_alone_are_enough(folder: Path) -> None:
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink()
    (folder / "tokenizer" / "tokenizer.json").write_text('{"version": "1.0"}')
    assert open_diffusers_folder(folder).tokenizer == folder / "tokenizer"
