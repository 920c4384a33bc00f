"""Tensors by name from one file, from shards with an index, and derived from others."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoint_folders import write_json, write_shards
from safetensors.numpy import save_file

from hotshot_jax.convert.tensors.tensor_source import (
    TensorSource,
    check_finite,
    open_file,
    open_files,
    open_index,
)
from hotshot_jax.errors import HotshotError
from tests.other_models import change_json

VALUES = {f"layer.{index}.weight": np.full((2, index + 1), index, np.float32) for index in range(6)}
SHARDS = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
INDEX = "model.safetensors.index.json"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    write_shards(tmp_path, SHARDS, INDEX, VALUES)
    return tmp_path


def assert_equal(source: TensorSource, values: dict[str, np.ndarray]) -> None:
    assert set(source) == set(values)
    for name, value in values.items():
        np.testing.assert_array_equal(source.read(name), value, strict=True)


def test_one_file(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "x.safetensors", metadata={"format": "pt"})
    source = open_file(tmp_path / "x.safetensors")
    assert_equal(source, VALUES)
    assert source.names == tuple(source)
    assert source.shape("layer.3.weight") == (2, 4)
    assert source.dtype("layer.3.weight") == np.float32
    assert source.nbytes == sum(value.nbytes for value in VALUES.values())
    assert source.metadata == {"format": "pt"}
    assert source["layer.3.weight"].file == tmp_path / "x.safetensors"
    view = source.read("layer.3.weight")
    source.release("layer.3.weight")
    np.testing.assert_array_equal(view, VALUES["layer.3.weight"])


def test_shards(sharded: Path) -> None:
    source = open_index(sharded / INDEX)
    assert_equal(source, VALUES)
    assert source["layer.0.weight"].file.name == SHARDS[0]
    assert source["layer.5.weight"].file.name == SHARDS[1]
    assert source.path == sharded / INDEX


def test_renamed_below_and_mapped(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "x.safetensors")
    source = open_file(tmp_path / "x.safetensors")
    renamed = source.renamed(lambda name: name.upper() if "3" in name else None)
    assert_equal(renamed, {"LAYER.3.WEIGHT": VALUES["layer.3.weight"]})
    assert_equal(source.below("layer.3."), {"weight": VALUES["layer.3.weight"]})
    sliced = source["layer.3.weight"].mapped("first", (4,), lambda array: array[0])
    assert (sliced.name, sliced.shape, sliced.nbytes) == ("first", (4,), 16)
    assert np.shares_memory(sliced.read(), source.read("layer.3.weight"))
    both = TensorSource([sliced, *source.values()], tmp_path)
    assert both.names[0] == "first"
    assert len(both) == 7


def test_two_tensors_of_one_name(tmp_path: Path) -> None:
    save_file(VALUES, tmp_path / "x.safetensors")
    source = open_file(tmp_path / "x.safetensors")
    with pytest.raises(HotshotError, match=r"'same' comes from two places"):
        source.renamed(lambda name: "same")


def test_files_without_index_may_not_share_a_name(sharded: Path) -> None:
    assert_equal(open_files([sharded / shard for shard in SHARDS], sharded), VALUES)
    save_file({"layer.0.weight": VALUES["layer.0.weight"]}, sharded / "extra.safetensors")
    with pytest.raises(HotshotError, match=r"'layer.0.weight' comes from two places"):
        open_files([sharded / SHARDS[0], sharded / "extra.safetensors"], sharded)


def _remap(folder: Path, **changes: Any) -> None:
    index = folder / INDEX
    weight_map = {name: SHARDS[0] if int(name[6]) < 3 else SHARDS[1] for name in VALUES}
    weight_map |= {name.replace("_", "."): shard for name, shard in changes.items()}
    write_json(index, {"weight_map": {k: v for k, v in weight_map.items() if v is not ...}})


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "shard missing": (
        lambda folder: (folder / SHARDS[1]).unlink(),
        f"lists {SHARDS[1]}, which is not beside it; download the missing shards",
    ),
    "shard truncated": (
        lambda folder: (folder / SHARDS[1]).write_bytes((folder / SHARDS[1]).read_bytes()[:-4]),
        f"{SHARDS[1]} is cut short",
    ),
    "unknown key": (
        lambda folder: _remap(folder, layer_9_weight=SHARDS[0]),
        f"names tensors that their files do not hold: layer.9.weight (in {SHARDS[0]})",
    ),
    "key in the other shard": (
        lambda folder: _remap(folder, layer_0_weight=SHARDS[1]),
        f"names tensors that their files do not hold: layer.0.weight (in {SHARDS[1]})",
    ),
    "key not listed": (
        lambda folder: _remap(folder, layer_0_weight=...),
        f"does not name tensors that its shards hold: layer.0.weight (in {SHARDS[0]})",
    ),
    "key in both shards": (
        lambda folder: save_file(VALUES, folder / SHARDS[1]),
        "'layer.0.weight' comes from two places",
    ),
    "path in a file name": (
        lambda folder: _remap(folder, layer_0_weight="../x.safetensors"),
        "only files in the same folder are read",
    ),
    "absolute path": (
        lambda folder: _remap(folder, layer_0_weight="/etc/passwd"),
        "only files in the same folder are read",
    ),
    "backslash path": (
        lambda folder: _remap(folder, layer_0_weight="..\\x.safetensors"),
        "only files in the same folder are read",
    ),
    "file name a number": (
        lambda folder: _remap(folder, layer_0_weight=1),
        "is 1, not a file name",
    ),
    "no weight map": (
        lambda folder: change_json(folder / INDEX, weight_map=...),
        "has no weight_map",
    ),
    "empty weight map": (
        lambda folder: change_json(folder / INDEX, weight_map={}),
        "has no weight_map",
    ),
    "index not JSON": (
        lambda folder: (folder / INDEX).write_text('{"weight_map": {'),
        "is not valid JSON",
    ),
    "index a web page": (
        lambda folder: (folder / INDEX).write_text("<!doctype html>"),
        "is a web page",
    ),
    "name twice in the index": (
        lambda folder: (folder / INDEX).write_text(
            f'{{"weight_map": {{"a": "{SHARDS[0]}", "a": "{SHARDS[1]}"}}}}'
        ),
        "names 'a' twice",
    ),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damaged_shards(sharded: Path, case: str) -> None:
    damage, expected = DAMAGE[case]
    damage(sharded)
    with pytest.raises(HotshotError) as caught:
        open_index(sharded / INDEX)
    assert expected in str(caught.value)
    assert str(sharded) in str(caught.value)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64], ids=str)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_found(dtype: Any, bad: float) -> None:
    # More than one block, with the bad value in the last, and in one that is not contiguous.
    array = np.full((3, 200_000), 1.5, dtype)
    array[0, 0] = ml_dtypes.finfo(dtype).max
    array[0, 1] = ml_dtypes.finfo(dtype).smallest_subnormal
    check_finite("name", array)
    check_finite("name", array.T)
    array[2, 199_999] = bad
    for each in (array, array.T):
        with pytest.raises(HotshotError, match=r"name: 1 of 600000 values are NaN or infinite"):
            check_finite("name", each)


@pytest.mark.parametrize(
    "array", [np.zeros((0, 3), np.float32), np.ones(3, np.int64), np.ones(2, bool)]
)
def test_integers_and_empty_tensors_are_finite(array: np.ndarray) -> None:
    check_finite("name", array)
