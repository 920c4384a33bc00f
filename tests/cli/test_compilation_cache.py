import os
import stat
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from hotshot_jax.cli.compilation_cache import (
    CompilationCounter,
    chosen_folder,
    compilation_cache,
    default_folder,
)
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.errors import UsageError


def _compile_something() -> None:
    jax.clear_caches()
    assert jax.jit(lambda x: x + 1)(1.0) == 2


def _programs(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_runs_in_one_process_keep_to_their_own_folders(tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        with compilation_cache(folder):
            _compile_something()
    kept = [_programs(folder) for folder in folders]
    assert all(kept), kept
    assert jax.config.jax_compilation_cache_dir == before
    with compilation_cache(None):
        _compile_something()
    assert [_programs(folder) for folder in folders] == kept


def test_programs_are_taken_from_where_they_were_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = []
    for folder in (None, tmp_path, tmp_path, None):
        progress = TerminalProgress()
        with compilation_cache(folder), progress.compiling("program"):
            _compile_something()
        said.append("taken from the cache" in capsys.readouterr().err)
        counted = progress.compilations
        assert (counted.misses == 0, counted.hits > 0) == (said[-1], said[-1])
    assert said == [False, False, True, False]


@pytest.mark.parametrize(
    ("platform", "processes", "kept"), [("gpu", 2, False), ("gpu", 1, True), ("tpu", 2, True)]
)
def test_hosts_with_gpus_have_programs_together_or_none_has(
    monkeypatch: pytest.MonkeyPatch, platform: str, processes: int, kept: bool
) -> None:
    """Compilers that share out their trials would wait for one that has its program already."""
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(jax, "process_count", lambda: processes)
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert chosen_folder(None) == (default_folder() if kept else None)
    assert chosen_folder("/shared") == Path("/shared")


def test_nowhere_is_nowhere_whatever_the_environment_says(tmp_path: Path) -> None:
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        with compilation_cache(None):
            _compile_something()
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert not any(tmp_path.iterdir())


def test_a_program_under_anothers_name_is_not_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def run() -> tuple[float, float]:
        jax.clear_caches()
        with compilation_cache(tmp_path):
            double, negate = jax.jit(lambda x: 2 * x), jax.jit(lambda x: -x)
            return float(double(jnp.float32(3))), float(negate(jnp.float32(3)))

    assert run() == (6, -3)
    one, other = sorted(tmp_path.glob("jit__lambda*"))[:2]
    one.write_bytes(other.read_bytes())
    assert run() == (6, -3)
    assert "another program's" in caplog.text
    assert one.read_bytes() != other.read_bytes(), "compiled anew and kept"


@pytest.mark.parametrize("damage", ["bit", "cut", "empty", "link", "pipe", "writable", "folder"])
def test_what_is_damaged_or_anybodys_is_compiled_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "compiled"
    with compilation_cache(folder):
        _compile_something()
    for file in list(folder.iterdir()):
        content = bytearray(file.read_bytes())
        content[-9] ^= 4
        if damage == "link":
            file.rename(tmp_path / file.name)
            file.symlink_to(tmp_path / file.name)
        elif damage in ("pipe", "folder"):
            file.unlink()
            os.mkfifo(file) if damage == "pipe" else file.mkdir()
        elif damage == "writable":
            file.chmod(0o666)
        else:
            file.write_bytes({"bit": content, "cut": content[:-50], "empty": b""}[damage])
    counter = CompilationCounter()
    with compilation_cache(folder):
        _compile_something()
    assert (counter.hits, counter.misses > 0) == (0, True)
    assert caplog.text.count("compiled anew") == 1


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(
    tmp_path: Path, mode: int, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "shared"
    with compilation_cache(folder):
        _compile_something()
    kept = _programs(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    folder.chmod(mode)
    link = tmp_path / "link"
    link.symlink_to(folder)
    for name in (folder, link):
        counter = CompilationCounter()
        with compilation_cache(name):
            _compile_something()
        assert counter.hits == 0
    assert _programs(folder) == kept
    assert "others can write to it" in caplog.text
    assert "--compilation_cache names another folder" in caplog.text


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a folder away")
def test_another_users_folder_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o755)
    os.chown(folder, 12345, 12345)
    with compilation_cache(folder):
        _compile_something()
    assert not any(folder.iterdir())
    assert "belongs to another user" in caplog.text


def test_without_a_home_the_folder_in_the_temporary_one_is_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = default_folder()
    assert folder.is_relative_to(tmp_path / f"hotshot-jax-{os.getuid()}")
    with compilation_cache(folder):
        _compile_something()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_flag_names_a_folder() -> None:
    assert chosen_folder(None) == default_folder()
    assert chosen_folder("none") is None
    assert chosen_folder("~/compiled") == Path(os.path.expanduser("~")) / "compiled"
    with pytest.raises(UsageError, match="--compilation_cache is empty"):
        chosen_folder("")
