"""`python -m convert`: to our form and back, from every spelling of the published layout."""

import functools
import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from huggingface_hub import constants

from hotshot_jax.cli.convert import command as convert_command
from hotshot_jax.convert import checkpoint, conversion
from hotshot_jax.errors import HotshotError
from hotshot_jax.pipelines import hotshot_xl
from tests.cli.checkpoints import (
    TABLE,
    TEXT,
    TEXT_2,
    UNET,
    VAE,
    Tensors,
    change_tensors,
    copy_of,
    everything,
    read_tensors,
    write_hub_cache,
    write_shards,
)
from tests.cli.conftest import Infer
from tests.cli.processes import signalled
from tests.other_models import change_json

FILES = (UNET, VAE, TEXT, TEXT_2)
POSITION_IDS = "text_model.embeddings.position_ids"


@pytest.fixture(scope="session")
def converted(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small checkpoint, converted; read-only by agreement."""
    dest = tmp_path_factory.mktemp("converted") / "tiny"
    assert convert_command.main([str(tiny_checkpoint), str(dest)]) == 0
    return dest


def assert_same_tensors(one: Tensors, other: Tensors) -> None:
    """Names, dtypes, shapes and every bit agree."""
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert (tensor.dtype, tensor.shape) == (other[name].dtype, other[name].shape), name
        assert tensor.tobytes() == other[name].tobytes(), name


def test_gives_the_same_pixels_as_its_source(
    infer: Infer, tmp_path: Path, plain: Path, converted: Path
) -> None:
    dest = tmp_path / "dest"
    assert infer("--output", dest, "--pretrained_path", converted).status == 0
    frames = [
        {name: pixels_of(folder / name) for name in everything(folder)} for folder in (plain, dest)
    ]
    assert frames[0] == frames[1]


def pixels_of(file: Path) -> bytes:
    from PIL import Image

    with Image.open(file) as image:
        return image.tobytes()


def test_prints_the_folder_and_leaves_nothing_beside_it(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path
) -> None:
    before = everything(tiny_checkpoint)
    run = convert(tiny_checkpoint, tmp_path / "new" / "dest")
    assert (run.status, run.stdout.strip()) == (0, str(tmp_path / "new" / "dest"))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["dest"]
    assert everything(tiny_checkpoint) == before


def _mix_types(tensors: Tensors) -> None:
    for number, name in enumerate(tensors):
        kind = (np.float16, ml_dtypes.bfloat16, np.float32)[number % 3]
        tensors[name] = tensors[name].astype(kind)


def test_to_torch_is_bit_equal(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    change_tensors(source / UNET, _mix_types)
    change_tensors(source / TEXT_2, _mix_types)
    positions = np.arange(77, dtype=np.int64)[None]
    change_tensors(source / TEXT, lambda tensors: tensors.update({POSITION_IDS: positions}))
    assert read_tensors(source / UNET)[TABLE].shape == (1, 24, 32)
    assert convert(source, tmp_path / "dest").status == 0
    assert convert(tmp_path / "dest", tmp_path / "back", "--to-torch").status == 0
    for file in FILES:
        assert_same_tensors(read_tensors(source / file), read_tensors(tmp_path / "back" / file))
    for file in ("model_index.json", "scheduler/scheduler_config.json", "unet/config.json"):
        one, other = ((tmp_path / folder / file).read_text() for folder in ("source", "back"))
        assert json.loads(one) == json.loads(other)
    for folder in ("tokenizer", "tokenizer_2"):
        assert everything(source / folder) == everything(tmp_path / "back" / folder)


def _shard(file: str, shard: str, index: str) -> Callable[[Path], None]:
    stem = "model" if file.startswith("text") else "diffusion_pytorch_model"
    return lambda folder: write_shards(
        folder / file, f"{stem}{shard}.safetensors", f"{stem}{index}.json"
    )


def _variant(file: str, variant: str) -> Callable[[Path], Any]:
    path = Path(file)
    name = path.with_suffix(f".{variant}.safetensors").name
    return lambda folder: (folder / file).rename(folder / path.parent / name)


SPELLINGS = {
    "fp16": [
        _shard(UNET, ".fp16-0000{n}-of-00002", ".safetensors.index.fp16"),
        _shard(VAE, "-0000{n}-of-00002.fp16", ".fp16.safetensors.index"),
        _shard(TEXT_2, "-0000{n}-of-00002", ".safetensors.index"),
        _variant(TEXT, "fp16"),
    ],
    "non_ema": [
        _shard(UNET, ".non_ema-0000{n}-of-00002", ".safetensors.index.non_ema"),
        _shard(TEXT_2, ".fp16-0000{n}-of-00002", ".fp16.safetensors.index"),
        _variant(VAE, "bf16"),
    ],
}


@pytest.mark.parametrize("case", SPELLINGS)
def test_spellings(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, converted: Path, case: str
) -> None:
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    for change in SPELLINGS[case]:
        change(source)
    run = convert(source, tmp_path / "dest")
    assert run.status == 0, run.stderr
    assert f"unet: no weights without a variant, using those of '{case}'" in run.stderr
    assert weights_of(tmp_path / "dest") == weights_of(converted)


@functools.cache
def weights_of(folder: Path) -> dict[str, Any]:
    """Dtype, shape and bits of every parameter of a converted checkpoint."""
    weights = {}
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        path = folder / component / "weights"
        tree = checkpoint.load(path, _nested(checkpoint.metadata(path)))
        weights |= dict(_leaves(tree, component))
    return weights


def _nested(leaves: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, leaf in leaves.items():
        *parents, last = name.split("/")
        branch = tree
        for part in parents:
            branch = branch.setdefault(part, {})
        branch[last] = leaf
    return tree


def _leaves(tree: Any, path: str = "") -> Any:
    if not isinstance(tree, dict):
        yield path, (tree.dtype, tree.shape, np.asarray(tree).tobytes())
        return
    for key, value in tree.items():
        yield from _leaves(value, f"{path}/{key}")


def test_another_dtype(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    assert convert(tiny_checkpoint, tmp_path / "dest", "--dtype", "bf16").status == 0
    for component in ("unet", "vae", "text_encoder", "text_encoder_2"):
        stored = checkpoint.metadata(tmp_path / "dest" / component / "weights")
        assert {leaf.dtype.name for leaf in stored.values()} == {"bfloat16"}
    assert convert(tmp_path / "dest", tmp_path / "back", "--to-torch").status == 0
    back = read_tensors(tmp_path / "back" / VAE)
    source = read_tensors(tiny_checkpoint / VAE)
    assert_same_tensors(
        back, {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in source.items()}
    )


def test_v_prediction_and_zero_terminal_noise_are_honoured(
    infer: Infer, tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def see(runtime: Any, sampling: Any, *_: Any, **__: Any) -> Any:
        scheduler = sampling.scheduler
        seen.append((scheduler.prediction_type, scheduler.rescale_betas_zero_snr))
        raise HotshotError("seen")

    source = copy_of(tiny_checkpoint, tmp_path / "source")
    change_json(
        source / "scheduler" / "scheduler_config.json",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
    )
    monkeypatch.setattr(hotshot_xl, "sample_latents", see)
    for path in (tiny_checkpoint, source):
        assert infer("--pretrained_path", path).status == 1
    assert seen == [("epsilon", False), ("v_prediction", True)]


def test_files_beside_the_weights_are_named_and_left(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, converted: Path
) -> None:
    source = copy_of(tiny_checkpoint, tmp_path / "source")
    change_json(
        source / "model_index.json", safety_checker=[None, None], feature_extractor=["a", "b"]
    )
    shutil.copy(source / UNET, source / "unet" / "diffusion_pytorch_model.non_ema.safetensors")
    (source / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"pickle")
    (source / "optimizer.bin").write_bytes(b"pickle")
    run = convert(source, tmp_path / "dest")
    assert run.status == 0
    assert "ignoring components that Hotshot-XL does not use: feature_extractor" in run.stderr
    assert (
        "not converted: optimizer.bin, unet/diffusion_pytorch_model.bin, "
        "unet/diffusion_pytorch_model.non_ema.safetensors"
    ) in run.stderr
    assert weights_of(tmp_path / "dest") == weights_of(converted)


def test_a_read_only_source(convert: Infer, tmp_path: Path, tiny_checkpoint: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(tiny_checkpoint, source)
    paths = [source, *source.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        assert convert(source, tmp_path / "dest").status == 0
        for path in (tmp_path / "dest").rglob("*"):
            assert path.stat().st_mode & 0o200, path
    finally:
        for path in paths:
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_a_hub_id_whose_cache_is_links(
    convert: Infer,
    tmp_path: Path,
    tiny_checkpoint: Path,
    converted: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_hub_cache(tiny_checkpoint, tmp_path / "hub", "hotshotco/tiny")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    assert convert("hotshotco/tiny", tmp_path / "dest").status == 0
    assert [path for path in (tmp_path / "dest").rglob("*") if path.is_symlink()] == []
    shutil.rmtree(tmp_path / "hub")
    assert weights_of(tmp_path / "dest") == weights_of(converted)


KILLED_MIDWAY = """
import sys, time
from hotshot_jax.cli.convert.command import main
from hotshot_jax.convert import conversion

fill, calls = conversion.fill_module, []

def slow(*arguments, **options):
    calls.append(arguments)
    if len(calls) == 2:
        print("midway", file=sys.stderr, flush=True)
        time.sleep(60)
    return fill(*arguments, **options)

conversion.fill_module = slow
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_conversion_is_run_again(
    convert: Infer, tmp_path: Path, tiny_checkpoint: Path, converted: Path
) -> None:
    command = [sys.executable, "-c", KILLED_MIDWAY, str(tiny_checkpoint), str(tmp_path / "dest")]
    status, stderr = signalled(command, signal.SIGKILL, when="midway")
    assert "midway" in stderr
    assert status == -signal.SIGKILL
    # What is there is not under the final name, and has no marker of a complete checkpoint.
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(".hotshot-jax-")
    leftover = leftover / "new" / "dest"
    assert (leftover / "unet" / "weights").is_dir()
    assert not (leftover / "hotshot_jax.json").exists()
    assert convert(tiny_checkpoint, tmp_path / "dest").status == 0
    assert [path.name for path in tmp_path.iterdir()] == ["dest"]
    assert weights_of(tmp_path / "dest") == weights_of(converted)


@pytest.mark.parametrize(
    ("number", "there_before"), [(signal.SIGINT, False), (signal.SIGTERM, True)]
)
def test_a_stopped_conversion_leaves_nothing(
    convert: Infer,
    tmp_path: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
    there_before: bool,
) -> None:
    dest = tmp_path / "new" / "dest"
    if there_before:
        dest.mkdir(parents=True)
    before = everything(tmp_path)

    def stop(path: Path, tree: Any) -> None:
        path.mkdir()
        signal.raise_signal(number)

    monkeypatch.setattr(conversion.checkpoint, "save", stop)
    run = convert(tiny_checkpoint, dest)
    assert run.status == 128 + number
    assert f"stopped by {number.name}" in run.stderr
    assert "Traceback" not in run.stderr
    assert everything(tmp_path) == before
