"""Orbax checkpoints: round trips, sharded loading, and damage."""

import collections
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from orbax.checkpoint import v1 as ocp

from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.conversion import convert_folder, write_torch_folder
from hotshot_jax.convert.formats.converted import open_converted
from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder
from hotshot_jax.errors import HotshotError, is_out_of_memory

DiskUsage = collections.namedtuple("DiskUsage", "total used free")


def tree() -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "conv_in": {"kernel": jnp.asarray(generator.standard_normal((3, 3, 4, 8)), jnp.float32)},
        "blocks": {
            0: {"scale": jnp.asarray(generator.standard_normal(8), jnp.bfloat16)},
            10: {"scale": jnp.asarray(generator.standard_normal(8), jnp.float16)},
        },
        "count": jnp.int32(3),
        "host": np.asarray(generator.standard_normal((2, 5)), ml_dtypes.bfloat16),
    }


def abstract(values: Any, dtype: Any = None) -> Any:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype or leaf.dtype), values)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orbax") / "weights"
    checkpoint.save(path, tree())
    return path


@pytest.fixture
def copy(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "copy"))


def test_round_trip_is_exact(written: Path) -> None:
    values = tree()
    loaded = checkpoint.load(written, abstract(values))
    assert jax.tree.structure(loaded) == jax.tree.structure(values)
    for given, found in zip(jax.tree.leaves(values), jax.tree.leaves(loaded), strict=True):
        assert isinstance(found, jax.Array)
        assert found.dtype == given.dtype
        np.testing.assert_array_equal(np.asarray(found), np.asarray(given))


def test_metadata(written: Path) -> None:
    found = checkpoint.metadata(written)
    assert {name: (leaf.shape, str(leaf.dtype)) for name, leaf in found.items()} == {
        "conv_in/kernel": ((3, 3, 4, 8), "float32"),
        "blocks/0/scale": ((8,), "bfloat16"),
        "blocks/10/scale": ((8,), "float16"),
        "count": ((), "int32"),
        "host": ((2, 5), "bfloat16"),
    }


def test_cast_on_load(written: Path) -> None:
    loaded = checkpoint.load(written, abstract(tree(), jnp.bfloat16))
    expected = tree()["conv_in"]["kernel"].astype(jnp.bfloat16)
    assert loaded["conv_in"]["kernel"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded["conv_in"]["kernel"]), np.asarray(expected))


def test_relative_path_and_copy_elsewhere(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy.parent)
    assert "count" in checkpoint.metadata("copy")
    assert checkpoint.load("copy", abstract(tree()))["count"] == 3
    checkpoint.save("second", {"a": jnp.ones(2)})
    assert list(checkpoint.metadata(copy.parent / "second")) == ["a"]


def test_read_only_checkpoint(copy: Path) -> None:
    folders = [copy, *(path for path in copy.rglob("*") if path.is_dir())]
    for path in copy.rglob("*"):
        if path.is_file():
            path.chmod(0o444)
    for path in folders:
        path.chmod(0o555)
    try:
        assert checkpoint.load(copy, abstract(tree()))["count"] == 3
    finally:
        for path in folders:
            path.chmod(0o755)


SHARDED = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.conversion import convert_folder, write_torch_folder
from hotshot_jax.convert.formats.converted import open_converted
from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder
assert len(jax.devices()) == 8
mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
values = np.arange(64 * 24, dtype=np.float32).reshape(64, 24)
saved = jax.device_put(values, NamedSharding(mesh, P(None, "model")))
checkpoint.save(sys.argv[1], {"w": saved})
for spec in (P("data", "model"), P(("data", "model")), P()):
    sharding = NamedSharding(mesh, spec)
    leaf = jax.ShapeDtypeStruct(values.shape, jnp.bfloat16, sharding=sharding)
    loaded = checkpoint.load(sys.argv[1], {"w": leaf})["w"]
    assert loaded.sharding == sharding, loaded.sharding
    assert loaded.dtype == jnp.bfloat16
    np.testing.assert_array_equal(np.asarray(loaded), values.astype(jnp.bfloat16))
print("equal")
"""


def test_loading_into_other_shardings(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHARDED, str(tmp_path / "weights")],
        env={**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "equal\n", done.stderr


def test_what_does_not_fit_is_listed_together(written: Path) -> None:
    expected = abstract(tree())
    expected["conv_in"]["kernel"] = jax.ShapeDtypeStruct((1, 1, 4, 8), jnp.float32)
    expected["extra"] = {f"layer{index}": expected["count"] for index in range(9)}
    del expected["blocks"][10]
    with pytest.raises(HotshotError) as caught:
        checkpoint.load(written, expected)
    message = str(caught.value)
    assert str(written) in message
    assert "9 missing: extra/layer0, extra/layer1, " in message
    assert "and 4 more" in message
    assert "1 not part of the model: blocks/10/scale" in message
    assert "1 of another shape: conv_in/kernel [3, 3, 4, 8], expected [1, 1, 4, 8]" in message


def test_each_file_that_is_missing_or_cut_short_is_named(
    copy: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    files = [path for path in copy.rglob("*") if path.is_file() and path.stat().st_size > 0]
    assert len(files) > 5
    for path in files:
        content = path.read_bytes()
        if path.name == "hotshot_files.json":
            continue
        for left in (None, content[: len(content) // 2]):
            path.unlink() if left is None else path.write_bytes(left)
            for use in (checkpoint.metadata, lambda each: checkpoint.load(each, abstract(tree()))):
                with pytest.raises(HotshotError) as caught:
                    use(copy)
                assert str(path) in str(caught.value)
                assert "not copied or written completely" in str(caught.value)
            path.write_bytes(content)
    assert checkpoint.load(copy, abstract(tree()))["count"] == 3
    assert capfd.readouterr().err == ""


def test_a_full_device_is_no_damage(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        try:
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
        except RuntimeError as error:
            raise ValueError("an array cannot be read") from error

    monkeypatch.setattr(ocp, "load", full)
    with pytest.raises(ValueError) as caught:
        checkpoint.load(written, abstract(tree()))
    assert is_out_of_memory(caught.value)


def test_one_bit_is_found_wherever_it_flips(copy: Path) -> None:
    generator = np.random.default_rng(5)
    for path in copy.rglob("*"):
        if not path.is_file() or path.stat().st_size == 0:
            continue
        content = path.read_bytes()
        for position in generator.integers(0, 8 * len(content), 12):
            changed = bytearray(content)
            changed[position // 8] ^= 1 << position % 8
            path.write_bytes(changed)
            if path.name == "hotshot_files.json" and _is_json_of(changed, content):
                continue
            with pytest.raises(HotshotError, match=r"convert the model again|hotshot_files"):
                checkpoint.load(copy, abstract(tree()))
        path.write_bytes(content)
    assert checkpoint.load(copy, abstract(tree()))["count"] == 3


def _is_json_of(changed: bytes, content: bytes) -> bool:
    """Whether a change is of blanks alone."""
    try:
        return json.loads(changed) == json.loads(content)
    except ValueError:
        return False


def test_a_list_of_sizes_alone_is_that_of_an_older_conversion(copy: Path) -> None:
    file = copy / "hotshot_files.json"
    entries = json.loads(file.read_text())
    file.write_text(json.dumps({name: entry["bytes"] for name, entry in entries.items()}))
    assert checkpoint.load(copy, abstract(tree()))["count"] == 3
    file.unlink()
    assert checkpoint.load(copy, abstract(tree()))["count"] == 3


def _without_list(path: Path) -> Path:
    (path / "hotshot_files.json").unlink()
    return path


WITHOUT_LIST: dict[str, Callable[[Path], Any]] = {
    "not finished by Orbax": lambda path: (path / "_CHECKPOINT_METADATA").unlink(),
    "no arrays": lambda path: shutil.rmtree(path / "state"),
    "no tree": lambda path: (path / "state" / "_METADATA").unlink(),
    "tree cut short": lambda path: os.truncate(path / "state" / "_METADATA", 100),
}


@pytest.mark.parametrize("case", WITHOUT_LIST)
def test_damage_where_there_is_no_list_of_files(copy: Path, case: str) -> None:
    assert len(checkpoint.metadata(_without_list(copy))) == 5
    WITHOUT_LIST[case](copy)
    with pytest.raises(HotshotError, match="not a complete Orbax checkpoint"):
        checkpoint.load(copy, abstract(tree()))


@pytest.mark.parametrize("make", [lambda path: None, lambda path: path.touch()])
def test_no_folder(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    make(tmp_path / "weights")
    with pytest.raises(HotshotError, match="does not exist or is no folder"):
        checkpoint.metadata(tmp_path / "weights")


def test_folder_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(HotshotError, match="not a complete Orbax checkpoint"):
        checkpoint.metadata(tmp_path)


def test_nothing_is_overwritten(copy: Path) -> None:
    with pytest.raises(HotshotError, match="exists already"):
        checkpoint.save(copy, {"a": jnp.ones(2)})
    assert checkpoint.load(copy, abstract(tree()))["count"] == 3


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "weights", tmp_path / "absent" / "weights"):
        with pytest.raises(HotshotError, match=r"weights cannot be written: No"):
            checkpoint.save(path, {"a": jnp.ones(2)})


def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(0, 0, 1000))
    with pytest.raises(HotshotError, match=r"not enough space for .*weights"):
        checkpoint.save(tmp_path / "weights", {"a": jnp.ones(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left"), "the disk is full"),
        (OSError(5, "Input/output error"), r"weights cannot be written: \[Errno 5\] Input/output"),
    ],
)
def test_failure_while_writing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def fail(path: Path, values: Any) -> None:
        path.with_name(path.name + ".orbax-checkpoint-tmp").mkdir()
        raise error

    monkeypatch.setattr(ocp, "save", fail)
    with pytest.raises(HotshotError, match=expected):
        checkpoint.save(tmp_path / "weights", {"a": jnp.ones(2)})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leaf", [np.zeros((0, 3)), 1.0, "text", None])
def test_leaves_that_are_no_arrays(tmp_path: Path, leaf: Any) -> None:
    with pytest.raises(TypeError, match="a/b: only arrays that hold something"):
        checkpoint.save(tmp_path / "weights", {"a": {"b": leaf}})
    assert list(tmp_path.iterdir()) == []


def test_disk_holds_the_weights_and_little_more(tmp_path: Path) -> None:
    # Uncompressed on purpose: what the check of free space counts is what is written.
    values = {"a": np.zeros((1024, 1024), np.float32), "b": np.zeros((512, 1024), np.float32)}
    checkpoint.save(tmp_path / "weights", values)
    size = sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file())
    total = sum(value.nbytes for value in values.values())
    assert total <= size < total + 64 * 1024


MEMORY = """
import re, sys
import jax, jax.numpy as jnp
from hotshot_jax.convert import checkpoint
from hotshot_jax.convert.conversion import convert_folder, write_torch_folder
from hotshot_jax.convert.formats.converted import open_converted
from hotshot_jax.convert.formats.diffusers_folder import open_diffusers_folder

def resident(kind):
    return int(re.search(kind + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024

path, action = sys.argv[1:]
names = [f"w{index}" for index in range(32)]
if action == "save":
    fill = jax.jit(lambda value: jnp.full((2048, 4096), value, jnp.float32))
    tree = jax.block_until_ready({name: fill(index) for index, name in enumerate(names)})
before = resident("VmRSS")
if action == "save":
    checkpoint.save(path, tree)
else:
    leaf = jax.ShapeDtypeStruct((2048, 4096), jnp.float32)
    jax.block_until_ready(checkpoint.load(path, dict.fromkeys(names, leaf)))
print(resident("VmHWM") - before)
"""


@pytest.mark.slow
def test_memory_beside_the_arrays_is_bounded(tmp_path: Path) -> None:
    total = 32 * 2**25

    def peak(action: str) -> int:
        command = [sys.executable, "-c", MEMORY, str(tmp_path / "weights"), action]
        folder = Path(__file__).parents[2]
        return int(subprocess.run(command, cwd=folder, capture_output=True, check=True).stdout)

    # Bytes in flight are limited to 256 MiB; reading holds them twice, packed and as an array.
    assert peak("save") < 0.25 * total
    assert peak("load") < 1.5 * total


def test_a_bit_of_what_is_stored_beside_the_weights(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Positional tables, which no model here reads, but PyTorch's on the way back."""
    convert_folder(open_diffusers_folder(tiny_checkpoint), tmp_path / "converted")
    converted = open_converted(tmp_path / "converted")
    file = tmp_path / "converted" / "unet" / "buffers.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(HotshotError, match=r"buffers\.safetensors is damaged"):
        write_torch_folder(converted, tmp_path / "back")
    assert not (tmp_path / "back").exists()
