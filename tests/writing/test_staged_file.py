import errno
import os
from pathlib import Path

import pytest

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing import staging
from hotshot_jax.writing.staging import replace_anything, staged_file, staged_folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*"))


def test_a_file_appears_when_it_is_complete(tmp_path):
    path = tmp_path / "new" / "deep" / "a.gif"
    with staged_file(path) as staged:
        staged.write_bytes(b"after")
        assert staged.parents[2] == path.parent
        assert not path.exists()
    assert path.read_bytes() == b"after"
    assert names(tmp_path) == ["a.gif", "deep", "new"]


def test_a_new_file_has_the_usual_permissions(tmp_path):
    plain = tmp_path / "plain"
    plain.write_bytes(b"")
    with staged_file(tmp_path / "a.gif") as staged:
        staged.write_bytes(b"")
    assert (tmp_path / "a.gif").stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interruption_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "a.gif"
    path.write_bytes(b"before")
    with pytest.raises(error), staged_file(path, may_replace=replace_anything) as staged:
        staged.write_bytes(b"half")
        raise error
    assert path.read_bytes() == b"before"
    assert names(tmp_path) == ["a.gif"]


def test_an_error_of_the_system_names_the_file(tmp_path):
    path = tmp_path / "new" / "a.gif"
    with pytest.raises(HotshotError, match=r"a\.gif could not be written: No space left"):  # noqa: SIM117
        with staged_file(path) as staged:
            staged.write_bytes(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert names(tmp_path) == []


def test_parents_that_were_there_stay(tmp_path):
    (tmp_path / "old").mkdir()
    with pytest.raises(KeyboardInterrupt), staged_file(tmp_path / "old" / "new" / "a.gif"):
        raise KeyboardInterrupt
    assert names(tmp_path) == ["old"]


@pytest.mark.parametrize("before", [None, [], ["frame_0000.png", "frame_0001.png"]])
def test_a_folder_is_replaced_as_a_whole(tmp_path, before):
    path = tmp_path / "clip"
    if before is not None:
        path.mkdir()
        for name in before:
            (path / name).write_bytes(b"before")
    with staged_folder(path, may_replace=replace_anything) as staged:
        (staged / "frame_0000.png").write_bytes(b"after")
        assert path.exists() == (before is not None)
    assert names(tmp_path) == ["clip", "frame_0000.png"]
    assert (path / "frame_0000.png").read_bytes() == b"after"


def test_an_interruption_leaves_the_old_folder(tmp_path):
    path = tmp_path / "clip"
    path.mkdir()
    (path / "frame_0000.png").write_bytes(b"before")
    with (
        pytest.raises(KeyboardInterrupt),
        staged_folder(path, may_replace=replace_anything) as staged,
    ):
        (staged / "frame_0000.png").write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["clip", "frame_0000.png"]
    assert (path / "frame_0000.png").read_bytes() == b"before"


@pytest.mark.parametrize("error", [KeyboardInterrupt, PermissionError])
def test_an_interruption_between_two_renames_leaves_the_old_folder(tmp_path, monkeypatch, error):
    path = tmp_path / "clip"
    path.mkdir()
    (path / "frame_0000.png").write_bytes(b"before")
    rename, calls = os.rename, []

    def second_fails(source: Path, target: Path) -> None:
        calls.append(source)
        if len(calls) == 2:
            raise error(13, "Permission denied")
        rename(source, target)

    monkeypatch.setattr(staging.os, "rename", second_fails)
    with (
        pytest.raises((KeyboardInterrupt, HotshotError)),
        staged_folder(path, may_replace=replace_anything) as staged,
    ):
        (staged / "frame_0000.png").write_bytes(b"after")
    assert len(calls) == 3
    assert names(tmp_path) == ["clip", "frame_0000.png"]
    assert (path / "frame_0000.png").read_bytes() == b"before"


@pytest.mark.parametrize("there", ["file", "folder", "later"])
def test_nothing_is_replaced_unasked(tmp_path, there):
    path = tmp_path / "a"
    if there == "folder":
        path.mkdir()
        (path / "thesis").touch()
    elif there == "file":
        path.write_bytes(b"before")
    with pytest.raises(UsageError, match=r"exists already|is not empty"), staged_file(path) as new:
        new.write_bytes(b"after")
        path.write_bytes(b"before")
    if there != "folder":
        assert path.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 1


def test_a_dead_link_is_not_written_through(tmp_path):
    (tmp_path / "a").symlink_to("nowhere")
    for staged in (staged_file, staged_folder):
        with pytest.raises(UsageError, match="symbolic link to nowhere"), staged(tmp_path / "a"):
            pytest.fail("the block must not run")
    assert names(tmp_path) == ["a"]


def test_what_a_killed_run_left_is_removed_and_what_it_moved_is_put_back(tmp_path):
    leftover = tmp_path / ".hotshot-jax-0123456789abcdef.tmp"
    (leftover / "new").mkdir(parents=True)
    (leftover / "old" / "clip").mkdir(parents=True)
    (leftover / "old" / "clip" / "frame_0000.png").write_bytes(b"before")
    (tmp_path / ".hotshot-jax-notes").touch()
    with staged_file(tmp_path / "a.gif") as staged:
        staged.write_bytes(b"after")
    assert names(tmp_path) == [".hotshot-jax-notes", "a.gif", "clip", "frame_0000.png"]


@pytest.mark.parametrize("made", [(), ("new",)])
def test_what_was_killed_as_it_began_is_removed(tmp_path, made):
    leftover = tmp_path / ".hotshot-jax-0123456789abcdef.tmp"
    leftover.mkdir()
    for folder in made:
        (leftover / folder).mkdir()
    with staged_file(tmp_path / "a.gif") as staged:
        staged.write_bytes(b"after")
    assert names(tmp_path) == ["a.gif"]
