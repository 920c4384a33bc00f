"""Choosing the weight files of a component, in every spelling of variants and shards."""

import pytest

from hotshot_jax.convert.tensors.weight_files import (
    choose_weight_files,
    describe_unread,
    find_weight_files,
    is_complete,
)

STEM = "diffusion_pytorch_model"
SHARD_NAMES = [
    (None, f"{STEM}.safetensors.index.json", f"{STEM}-0000{{}}-of-00002.safetensors"),
    ("fp16", f"{STEM}.safetensors.index.fp16.json", f"{STEM}.fp16-0000{{}}-of-00002.safetensors"),
    ("fp16", f"{STEM}.fp16.safetensors.index.json", f"{STEM}-0000{{}}-of-00002.fp16.safetensors"),
    ("fp16", f"{STEM}.safetensors.index.fp16.json", f"{STEM}-0000{{}}-of-00002.fp16.safetensors"),
    ("non_ema", f"{STEM}.safetensors.index.non_ema.json", f"{STEM}.non_ema-{{}}-of-2.safetensors"),
    ("bf16", "model.safetensors.index.bf16.json", "model.bf16-0000{}-of-00002.safetensors"),
    (None, "model.safetensors.index.json", "model-0000{}-of-00002.safetensors"),
]


@pytest.mark.parametrize(("variant", "index", "shard"), SHARD_NAMES)
def test_spellings_of_shards(variant: str | None, index: str, shard: str) -> None:
    shards = (shard.format(1), shard.format(2))
    (found,) = find_weight_files([index, *shards, "config.json", "model.onnx"])
    assert (found.variant, found.single) == (variant, None)
    assert found.names == (index, *shards)
    assert is_complete(shards)
    assert not is_complete(shards[:1])


@pytest.mark.parametrize("variant", [None, "fp16", "bf16", "non_ema", "fp32", "ema-only"])
@pytest.mark.parametrize("stem", [STEM, "model", "pytorch_model"])
def test_spellings_of_single_files(stem: str, variant: str | None) -> None:
    name = f"{stem}.safetensors" if variant is None else f"{stem}.{variant}.safetensors"
    (found,) = find_weight_files([name])
    assert (found.stem, found.variant, found.names) == (stem, variant, (name,))


SEVERAL = [
    f"{STEM}.safetensors",
    f"{STEM}.fp16.safetensors",
    f"{STEM}.non_ema.safetensors",
    f"{STEM}.safetensors.index.bf16.json",
    f"{STEM}.bf16-00001-of-00001.safetensors",
]


@pytest.mark.parametrize(
    ("asked", "there", "chosen"),
    [
        (None, SEVERAL, f"{STEM}.safetensors"),
        ("fp16", SEVERAL, f"{STEM}.fp16.safetensors"),
        ("non_ema", SEVERAL, f"{STEM}.non_ema.safetensors"),
        ("bf16", SEVERAL, f"{STEM}.safetensors.index.bf16.json"),
        ("fp8", SEVERAL, f"{STEM}.safetensors"),
        (None, SEVERAL[1:], f"{STEM}.fp16.safetensors"),
        (None, SEVERAL[2:], f"{STEM}.safetensors.index.bf16.json"),
        ("fp16", SEVERAL[2:], f"{STEM}.safetensors.index.bf16.json"),
        (None, [f"{STEM}.strange.safetensors"], f"{STEM}.strange.safetensors"),
        (None, ["pytorch_model.safetensors", "model.safetensors"], "model.safetensors"),
    ],
)
def test_preference(asked: str | None, there: list[str], chosen: str) -> None:
    found = choose_weight_files(find_weight_files(there), asked)
    assert found is not None
    assert found.names[0] == chosen


def test_nothing_to_choose() -> None:
    names = ["config.json", "diffusion_pytorch_model.bin", "other.safetensors", "model.txt"]
    assert choose_weight_files(find_weight_files(names), None) is None
    assert describe_unread(names) == "diffusion_pytorch_model.bin (PyTorch pickle)"
    assert describe_unread(["config.json"]) is None
    assert describe_unread(["flax_model.msgpack"]) == "flax_model.msgpack (Flax)"


@pytest.mark.parametrize(
    "shards",
    [
        [],
        ["model-00001-of-00002.safetensors", "model-00003-of-00002.safetensors"],
        ["model-00001-of-00002.safetensors", "model-00002-of-00003.safetensors"],
        ["model-00001-of-00001.safetensors", "model.fp16-00001-of-00001.safetensors"],
    ],
)
def test_incomplete_shards(shards: list[str]) -> None:
    assert not is_complete(shards)
