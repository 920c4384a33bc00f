"""Programs that are loaded without being traced again, and those that are not."""

import contextlib
import hashlib
import logging
import os
import pickle
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.runtime.program_folder import ProgramFolder, own_secret
from hotshot_jax.runtime.programs import Programs
from hotshot_jax.runtime.stored_programs import StoredPrograms

SECRET = b"s" * 32


class Silent:
    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        yield


class Counted:
    """A function that counts how often it is traced.

    Args:
        folder: another one gives another program, which JAX's cache does not have.
    """

    def __init__(self, folder: Path) -> None:
        self.traced = 0
        self.summand = (zlib.crc32(str(folder).encode()) + time.time_ns() // 10**12) % 2**20

    def __call__(self, state: dict[str, jax.Array], other: jax.Array) -> dict[str, jax.Array]:
        self.traced += 1
        return {"sum": state["x"] @ other + self.summand - self.summand}


X = jnp.arange(16.0).reshape(4, 4)


def run(folder: Path, models: str = "m", **changes: Any) -> tuple[Any, int]:
    """What a new process would do, where nothing is in memory: result, and how often it traced."""
    function = Counted(folder)
    programs = Programs()
    programs.stored = StoredPrograms(ProgramFolder(folder).with_secret(SECRET), models)
    arguments = changes.pop("arguments", ({"x": X}, X))
    key = changes.pop("key", "k")
    progress: Any = Silent()
    program = programs.get("name", key, function, arguments, progress, **changes)
    return program(*arguments), function.traced


def test_a_program_is_traced_once(tmp_path: Path) -> None:
    (first, traced), (again, loaded) = run(tmp_path), run(tmp_path)
    assert (traced, loaded) == (1, 0)
    np.testing.assert_array_equal(first["sum"], X @ X)
    np.testing.assert_array_equal(again["sum"], first["sum"])


CHANGES: dict[str, dict[str, Any]] = {
    "models": {"models": "n"},
    "key": {"key": "l"},
    "precision": {"matmul": "highest"},
    "shape": {"arguments": ({"x": X[:2]}, X)},
    "dtype": {"arguments": ({"x": X.astype(jnp.bfloat16)}, X)},
    "donated": {"donate": (1,), "arguments": ({"x": X}, X + 0)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_program_is_compiled(tmp_path: Path, change: str) -> None:
    run(tmp_path)
    assert run(tmp_path, **CHANGES[change])[1] == 1
    assert run(tmp_path)[1] == 0


def test_another_setting_is_another_program(tmp_path: Path) -> None:
    stored = StoredPrograms(ProgramFolder(tmp_path).with_secret(SECRET), "m")
    before = stored.key("name")
    assert before is not None and before == stored.key("name")
    with jax.default_matmul_precision("highest"):
        assert stored.key("name") != before
    # What shows itself by its address alone would be found under another's.
    assert stored.key("name", object()) is None


def malicious(path: Path) -> bytes:
    class Touch:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return os.mkdir, (str(path),)

    return pickle.dumps(Touch())


@pytest.mark.parametrize("signed", ["not", "without secret", "with another"])
def test_nothing_of_a_foreign_file_is_run(
    tmp_path: Path, signed: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = ProgramFolder(tmp_path / "programs").with_secret(SECRET)
    stored = StoredPrograms(folder, "m")
    key = stored.key("name")
    assert key is not None
    content = malicious(tmp_path / "run")
    if signed == "not":
        file = folder.file(key)
        file.write_bytes(hashlib.sha256(content).digest() + content)
        file.chmod(0o600)
    else:
        secret = b"" if signed == "without secret" else b"o" * 32
        ProgramFolder(tmp_path / "programs").with_secret(secret).put(key, content)
    assert stored.get(key) is None
    assert not (tmp_path / "run").exists() and "compiled anew" in caplog.text


def test_what_does_not_load_is_compiled_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path)
    (file,) = tmp_path.glob("executable-*")
    key = file.name.removesuffix(".program")
    ProgramFolder(tmp_path).with_secret(SECRET).put(key, pickle.dumps("no program"))
    with caplog.at_level(logging.WARNING):
        assert run(tmp_path)[1] == 1
    assert "cannot be loaded and is compiled anew" in caplog.text


def test_a_folder_without_a_secret_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="secret"):
        StoredPrograms(ProgramFolder(tmp_path), "m")


def test_the_secret_is_this_users_alone(tmp_path: Path) -> None:
    file = tmp_path / "config" / "secret"
    secret = own_secret(file)
    assert secret is not None and len(secret) == 32 and own_secret(file) == secret
    assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o077 == 0
    assert own_secret(tmp_path / "other") not in (None, secret)
    link = tmp_path / "link"
    link.symlink_to(file)
    assert own_secret(link) is None
    file.chmod(0o640)
    assert own_secret(file) is None
    file.chmod(0o600)
    file.write_bytes(b"short")
    assert own_secret(file) is None


def test_what_jax_took_from_its_own_cache_is_not_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a CPU it would load, and fail when it is run.
    run(tmp_path / "first")
    stored = StoredPrograms(ProgramFolder(tmp_path / "second").with_secret(SECRET), "m")

    def from_cache() -> str:
        jax.monitoring.record_event("/jax/compilation_cache/cache_hits")
        return "program"

    assert stored.get_or_compile("x", from_cache) == "program"
    assert not list((tmp_path / "second").glob("executable-*"))


def test_those_that_were_not_used_for_longest_go(tmp_path: Path) -> None:
    folder = ProgramFolder(tmp_path).with_secret(SECRET)
    for number, key in enumerate(("executable-a", "executable-b", "executable-c", "jit_step")):
        folder.put(key, b"program")
        os.utime(folder.file(key), (number, number))
    assert folder.get("executable-a") == b"program"
    folder.forget_oldest("executable-", 2)
    left = {file.name for file in tmp_path.iterdir()}
    assert left == {"executable-a.program", "executable-c.program", "jit_step.program"}
