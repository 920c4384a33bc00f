"""Paths that lead to the same place."""

import os
from pathlib import Path

import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.writing.places import check_not_read, is_inside, is_same_place


def spellings(tmp_path: Path) -> dict[str, Path]:
    """Paths to the file `tmp_path/folder/file`."""
    file = tmp_path / "folder" / "file"
    file.parent.mkdir()
    file.write_bytes(b"content")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file link").symlink_to(file)
    os.link(file, tmp_path / "hard link")
    return {
        "plain": file,
        "dots": tmp_path / "folder" / ".." / "folder" / "file",
        "folder link": tmp_path / "link" / "file",
        "file link": tmp_path / "file link",
        "hard link": tmp_path / "hard link",
        "relative": Path(os.path.relpath(file)),
    }


@pytest.mark.parametrize(
    "way", ["plain", "dots", "folder link", "file link", "hard link", "relative"]
)
def test_a_place_has_many_names(tmp_path: Path, way: str) -> None:
    path = spellings(tmp_path)[way]
    assert is_same_place(path, tmp_path / "folder" / "file")
    assert not is_same_place(path, tmp_path / "folder")
    with pytest.raises(UsageError, match=r"--output .* is what --gif reads"):
        check_not_read(path, {"--gif": tmp_path / "folder" / "file"}, "--output")


@pytest.mark.parametrize(
    ("target", "source"), [("folder", "folder/file"), ("folder/file", "folder"), (".", "link")]
)
def test_neither_may_hold_the_other(tmp_path: Path, target: str, source: str) -> None:
    spellings(tmp_path)
    with pytest.raises(UsageError, match=r"holds, or is part of, what --gif reads"):
        check_not_read(tmp_path / target, {"--gif": tmp_path / source}, "--output")


def test_places_beside_each_other(tmp_path: Path) -> None:
    spellings(tmp_path)
    (tmp_path / "folder 2").mkdir()
    assert not is_inside(tmp_path / "folder 2", tmp_path / "folder")
    assert is_inside(tmp_path / "folder" / "not" / "there", tmp_path / "link")
    check_not_read(tmp_path / "folder 2", {"--gif": tmp_path / "folder"}, "--output")
    # What is not there is not replaced.
    check_not_read(tmp_path / "folder" / "new.gif", {"--gif": tmp_path / "folder"}, "--output")


def test_names_that_differ_in_case_are_what_the_file_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "raw").mkdir()
    stat = os.stat
    monkeypatch.setattr(os, "stat", lambda path, **options: stat(str(path).lower(), **options))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os.path, "realpath", lambda path: os.path.join("/", str(path)))
    assert is_same_place("raw", "RAW")
