"""Reading one .safetensors file, and every way in which such a file can be broken."""

import json
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from safetensors.numpy import save, save_file

from hotshot_jax.convert.tensors.safetensors_file import SafetensorsFile
from hotshot_jax.errors import HotshotError

DTYPES = [
    np.bool_, np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64,
    np.float16, ml_dtypes.bfloat16, np.float32, np.float64, np.complex64,
    ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2,
]  # fmt: skip

TWO = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}


def assemble(header: Any, data: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: Any, begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_reads_what_the_library_wrote(tmp_path: Path, dtype: Any) -> None:
    values = {
        "matrix": np.arange(12).reshape(3, 4).astype(dtype),
        "scalar": np.array(1).astype(dtype),
        "empty": np.zeros((0, 3), dtype),
    }
    save_file(values, tmp_path / "x.safetensors", metadata={"made": "here"})
    file = SafetensorsFile(tmp_path / "x.safetensors")
    assert set(file.names) == set(values)
    assert file.metadata == {"made": "here"}
    for name, value in values.items():
        assert file.shape(name) == value.shape
        assert file.dtype(name) == value.dtype
        read = file.read(name)
        assert read.dtype == value.dtype
        assert read.shape == value.shape
        assert read.tobytes() == value.tobytes()


def test_tensors_are_views_that_outlive_file_object_and_release(tmp_path: Path) -> None:
    save_file(TWO, tmp_path / "x.safetensors")
    file = SafetensorsFile(tmp_path / "x.safetensors")
    view = file.read("a")
    assert not view.flags.owndata
    assert not view.flags.writeable
    assert np.shares_memory(view, file.read("a"))
    file.release("a")
    del file
    np.testing.assert_array_equal(view, TWO["a"])


def test_unaligned_data_is_read(tmp_path: Path) -> None:
    data = np.arange(3, dtype=np.float32).tobytes()
    content = assemble(json.dumps({"x": entry("F32", [3], 0, 12)}).encode() + b" ", data)
    assert (len(content) - 12) % 4 != 0
    (tmp_path / "x.safetensors").write_bytes(content)
    np.testing.assert_array_equal(
        SafetensorsFile(tmp_path / "x.safetensors").read("x"), np.arange(3)
    )


def test_links_and_read_only_files_are_read(tmp_path: Path) -> None:
    save_file(TWO, tmp_path / "blob")
    (tmp_path / "blob").chmod(0o444)
    link = tmp_path / "x.safetensors"
    link.symlink_to("blob")
    assert SafetensorsFile(link).path == link
    np.testing.assert_array_equal(SafetensorsFile(link).read("b"), TWO["b"])


def test_release_gives_memory_back(tmp_path: Path) -> None:
    size = 2**20
    names = [f"t{index}" for index in range(32)]
    save_file({name: np.ones(size, np.float32) for name in names}, tmp_path / "x.safetensors")

    def resident(release: bool) -> int:
        file = SafetensorsFile(tmp_path / "x.safetensors")
        before = _resident_file_bytes()
        for name in names:
            assert file.read(name).sum() == size
            if release:
                file.release(name)
        return _resident_file_bytes() - before

    assert resident(release=False) > 100 * 2**20
    assert resident(release=True) < 16 * 2**20


def _resident_file_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    found = re.search(r"RssFile:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) * 1024


def _header(**tensors: Any) -> dict[str, Any]:
    return tensors


BROKEN: dict[str, tuple[bytes, str]] = {
    "zero bytes": (b"", "is empty (zero bytes); download it again"),
    "seven bytes": (b"\x01\0\0\0\0\0\0", "only 7 bytes"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 475\n",
        "Git-LFS pointer, not the file itself; run 'git lfs pull'",
    ),
    "web page": (b"\n<!DOCTYPE html><html>not found</html>", "web page"),
    "web page without doctype": (b"<HTML><body>Sign in</body></HTML>", "web page"),
    "server error in XML": (b'<?xml version="1.0"?><Error/>', "answer of a web server"),
    "torch pickle archive": (b"PK\x03\x04" + b"\0" * 60, "PyTorch pickle archive"),
    "pickle": (b"\x80\x02ccollections\nOrderedDict", "Python pickle"),
    "gguf": (b"GGUF\x03\0\0\0" + b"\0" * 60, "GGUF"),
    "header longer than file": (
        struct.pack("<Q", 1000) + b"{}",
        "its header should have 1000 bytes, the file holds 2",
    ),
    "absurd header length": (b"\xff" * 40, "cut short or not a safetensors file"),
    "header not JSON": (assemble(b"{not json}", b""), "header of"),
    "header not UTF-8": (assemble(b'{"\xff": 1}', b""), "not UTF-8"),
    "header a list": (assemble([1], b""), "an object was expected"),
    "header nested beyond sense": (assemble(b"[" * 200_000, b""), "nested too deeply"),
    "name twice": (
        assemble(
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            b"\0",
        ),
        "names 'a' twice",
    ),
    "metadata not texts": (assemble({"__metadata__": {"a": 1}}, b""), "__metadata__"),
    "entry not a table": (assemble({"a": 3}, b""), "'a' lacks dtype"),
    "entry without offsets": (
        assemble({"a": {"dtype": "F32", "shape": [1]}}, b"\0" * 4),
        "'a' lacks dtype, shape or data_offsets",
    ),
    "unknown type": (
        assemble(_header(a=entry("F12", [1], 0, 4)), b"\0" * 4),
        "'a' has the unknown type 'F12'; known are",
    ),
    "type not a text": (assemble(_header(a=entry(["F32"], [1], 0, 4)), b"\0" * 4), "unknown type"),  # type: ignore[arg-type]
    "negative shape": (assemble(_header(a=entry("F32", [-1], 0, 4)), b"\0" * 4), "invalid shape"),
    "shape of truths": (assemble(_header(a=entry("F32", [True], 0, 4)), b"\0" * 4), "invalid"),
    "negative offset": (assemble(_header(a=entry("F32", [1], -4, 0)), b"\0" * 4), "offsets"),
    "offsets reversed": (assemble(_header(a=entry("F32", [0], 4, 0)), b"\0" * 4), "offsets"),
    "fractional offset": (assemble(_header(a=entry("F32", [1], 0, 4.0)), b"\0" * 4), "offsets"),  # type: ignore[arg-type]
    "shape against bytes": (
        assemble(_header(a=entry("F32", [3], 0, 8)), b"\0" * 8),
        "'a' of shape [3] in F32 needs 12 bytes but has 8",
    ),
    "overlap": (
        assemble(
            _header(a=entry("F32", [2], 0, 8), b=entry("F32", [2], 4, 12)), b"\0" * 12
        ),
        "tensors 'a' and 'b' overlap",
    ),
    "hole": (
        assemble(_header(a=entry("F32", [1], 0, 4), b=entry("F32", [1], 8, 12)), b"\0" * 12),
        "4 bytes before tensor 'b' belong to no tensor",
    ),
    "outside the file": (
        assemble(_header(a=entry("F32", [1], 0, 4), b=entry("F32", [8], 4, 36)), b"\0" * 12),
        "tensor 'b' ends outside the file); download it again",
    ),
    "bytes after the end": (
        assemble(_header(a=entry("F32", [1], 0, 4)), b"\0" * 9),
        "5 bytes at its end belong to no tensor",
    ),
    "truncated": (save(TWO)[:-1], "is cut short"),
    "truncated in the header": (save(TWO)[:40], "is cut short"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_one_clear_error(tmp_path: Path, case: str) -> None:
    content, expected = BROKEN[case]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(content)
    with pytest.raises(HotshotError) as caught:
        SafetensorsFile(path)
    message = str(caught.value)
    assert expected in message
    assert str(path) in message
    assert len(message.splitlines()) <= 2
    assert caught.value.exit_status == 1


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.symlink_to("gone"), "link to a file that does not exist"),
        (lambda path: path.mkdir(), "is a folder where a file was expected"),
        (lambda path: path.symlink_to(path), "cannot be read"),
    ],
)
def test_unreadable_path(tmp_path: Path, make: Callable[[Path], Any], expected: str) -> None:
    path = tmp_path / "x.safetensors"
    make(path)
    with pytest.raises(HotshotError, match=expected):
        SafetensorsFile(path)


def test_four_bit_numbers_are_refused_when_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(assemble(_header(a=entry("F4", [4], 0, 2)), b"\0\0"))
    file = SafetensorsFile(path)
    assert file.dtype("a") == ml_dtypes.float4_e2m1fn
    with pytest.raises(HotshotError, match="4-bit numbers"):
        file.read("a")


def test_unknown_name(tmp_path: Path) -> None:
    save_file(TWO, tmp_path / "x.safetensors")
    with pytest.raises(HotshotError, match="no tensor named 'c'"):
        SafetensorsFile(tmp_path / "x.safetensors").read("c")


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_any_damage_is_an_error_or_readable(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(save(TWO))
    header_end = 8 + struct.unpack("<Q", content[:8])[0]
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, header_end - 1))] = data.draw(st.integers(0, 255))
    content = (
        content[: data.draw(st.integers(0, len(content)))] if data.draw(st.booleans()) else content
    )
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    path.write_bytes(content)
    try:
        file = SafetensorsFile(path)
        read = {name: file.read(name) for name in file.names}
    except HotshotError:
        return
    finally:
        os.unlink(path)
    assert (
        sum(each.nbytes for each in read.values())
        == len(content) - 8 - struct.unpack("<Q", content[:8])[0]
    )
