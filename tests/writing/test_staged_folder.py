"""A folder that appears under its name only when it is complete."""

import collections
import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing.staging import check_destination, check_disk_space, staged_folder

DiskUsage = collections.namedtuple("DiskUsage", "total used free")


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_appears_complete(tmp_path: Path) -> None:
    dest = tmp_path / "deep" / "result"
    with staged_folder(dest, required_bytes=10) as folder:
        assert folder.parents[2] == dest.parent
        (folder / "part").mkdir()
        (folder / "part" / "file").write_text("content")
        assert not dest.exists()
    assert (dest / "part" / "file").read_text() == "content"
    assert names(dest.parent) == ["result"]
    assert dest.stat().st_mode == dest.parent.stat().st_mode


def test_empty_destination_is_used(tmp_path: Path) -> None:
    (tmp_path / "dest").mkdir()
    with staged_folder(tmp_path / "dest") as folder:
        (folder / "file").touch()
    assert names(tmp_path) == ["dest"]
    assert names(tmp_path / "dest") == ["file"]


def test_link_to_an_empty_folder_is_followed(tmp_path: Path) -> None:
    (tmp_path / "disk" / "real").mkdir(parents=True)
    (tmp_path / "link").symlink_to("disk/real")
    with staged_folder(tmp_path / "link") as folder:
        assert folder.parents[2] == tmp_path / "disk"
        (folder / "file").touch()
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "link") == ["file"]


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), HotshotError("x")])
@pytest.mark.parametrize("existed", [True, False])
def test_failure_leaves_what_was_there(tmp_path: Path, error: BaseException, existed: bool) -> None:
    dest = tmp_path / "dest"
    if existed:
        dest.mkdir()
    with pytest.raises(type(error)), staged_folder(dest) as folder:
        (folder / "half").write_text("written")
        raise error
    assert names(tmp_path) == (["dest"] if existed else [])


def test_full_disk_while_writing(tmp_path: Path) -> None:
    with (
        pytest.raises(HotshotError, match=r"dest could not be written: No space left"),
        staged_folder(tmp_path / "dest"),
    ):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []
    with pytest.raises(ConnectionResetError), staged_folder(tmp_path / "dest"):
        raise ConnectionResetError(errno.ECONNRESET, "reset")


@pytest.mark.parametrize("free", [10**9, 10**9 + 10**6])
def test_too_little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(0, 0, free))
    with (
        pytest.raises(HotshotError, match=r"1\.00 GB are needed, 1\.00 GB are free"),
        staged_folder(tmp_path / "dest", required_bytes=10**9),
    ):
        pytest.fail("the block must not run")
    assert names(tmp_path) == []
    check_disk_space(tmp_path / "not" / "there", 10**8)


def _copy(path: Path) -> Path:
    path.mkdir()
    (path / "model_index.json").touch()
    return path


def _link(path: Path, target: Path) -> Path:
    path.symlink_to(target)
    return path


WRONG: dict[str, tuple[Callable[[Path, Path], Path], str]] = {
    "is the source": (lambda tmp, source: source, "source and destination are the same"),
    "is the source by another spelling": (
        lambda tmp, source: source / ".." / "source",
        "source and destination are the same",
    ),
    "is the source through a link": (
        lambda tmp, source: _link(tmp / "link", source),
        "source and destination are the same",
    ),
    "not empty": (lambda tmp, source: _copy(tmp / "full"), "is not empty; name a new folder"),
    "not empty through a link": (
        lambda tmp, source: _link(tmp / "link", _copy(tmp / "full")),
        "is not empty; name a new folder",
    ),
    "a file": (lambda tmp, source: source / "model_index.json", "exists and is not a folder"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_destinations(tmp_path: Path, case: str) -> None:
    source = _copy(tmp_path / "source")
    make, expected = WRONG[case]
    dest = make(tmp_path, source)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=expected):
        check_destination(dest, source=source)
    assert sorted(tmp_path.rglob("*")) == before


def test_parent_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(HotshotError, match=r"file/dest cannot be written: "),
        staged_folder(tmp_path / "file" / "dest"),
    ):
        pytest.fail("the block must not run")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make = Path.mkdir

    def refuse(path: Path, *args: Any, **options: Any) -> None:
        if path.name.startswith(".hotshot-jax-"):
            raise OSError(number, os.strerror(number))
        make(path, *args, **options)

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(HotshotError, match="cannot be written"), staged_folder(tmp_path / "dest"):
        pytest.fail("the block must not run")


def test_destination_filled_meanwhile(tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="dest is not empty"),
        staged_folder(tmp_path / "dest") as folder,
    ):
        (folder / "ours").touch()
        (tmp_path / "dest").mkdir()
        (tmp_path / "dest" / "theirs").touch()
    assert names(tmp_path) == ["dest"]
    assert names(tmp_path / "dest") == ["theirs"]


KILLED = """
import sys, time
from hotshot_jax.writing.staging import staged_folder
with staged_folder(sys.argv[1]) as folder:
    (folder / "half").write_text("x")
    print("writing", flush=True)
    time.sleep(60)
"""


def test_leftover_of_a_killed_run_is_removed_but_not_that_of_a_running_one(tmp_path: Path) -> None:
    dest = tmp_path / "dest"
    (tmp_path / ".dest-of-another.tmp").mkdir()
    running = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(dest)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == b"writing\n"
        with (
            pytest.raises(HotshotError, match=r"another process is writing .*dest"),
            staged_folder(dest),
        ):
            pytest.fail("the block must not run")
        assert len(names(tmp_path)) == 2
        running.send_signal(signal.SIGKILL)
        running.wait()
        assert len(names(tmp_path)) == 2
        with staged_folder(dest) as folder:
            assert names(folder) == []
            (folder / "whole").touch()
        assert names(tmp_path) == [".dest-of-another.tmp", "dest"]
        assert names(dest) == ["whole"]
    finally:
        running.kill()
        running.wait()
        running.stdout.close()


def test_read_only_source_and_links_in_it(tmp_path: Path) -> None:
    source = _copy(tmp_path / "source")
    source.chmod(0o555)
    with staged_folder(tmp_path / "dest") as folder:
        shutil.copyfile(source / "model_index.json", folder / "model_index.json")
    assert names(tmp_path) == ["dest", "source"]
