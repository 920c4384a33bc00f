import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media import write
from hotshot_jax.media.formats.output_form import (
    OutputForm,
    frame_file_name,
    frame_files,
    output_form,
)
from hotshot_jax.media.write import check_output, write_video


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("a.gif", OutputForm.GIF),
        ("a.b/c.GIF", OutputForm.GIF),
        ("a.mp4", OutputForm.MP4),
        ("a.webp", OutputForm.WEBP),
        ("a.jpg", OutputForm.JPEG),
        ("a.Jpeg", OutputForm.JPEG),
        ("a.png", OutputForm.PNG),
        ("a", OutputForm.PNG_FOLDER),
        ("a/", OutputForm.PNG_FOLDER),
        ("a.gif/", OutputForm.PNG_FOLDER),
        ("v1.5/", OutputForm.PNG_FOLDER),
        (Path("a.gif"), OutputForm.GIF),
    ],
)
def test_form_by_ending(path, form):
    assert output_form(path) is form


@pytest.mark.parametrize("path", ["a.avi", "a.gif.txt", "v1.5", "a.gi f"])
def test_unknown_ending_lists_the_known(path):
    with pytest.raises(UsageError, match=r"unknown ending .*\.gif, \.mp4, \.webp.*\.jpg.*\.png"):
        check_output(path, 8, False)


@pytest.mark.parametrize("path", ["", "a\0.gif", "-"])
def test_no_path(path):
    with pytest.raises(UsageError, match="`output`"):
        check_output(path, 8, False)


def test_an_ending_alone_is_no_name(tmp_path):
    with pytest.raises(UsageError, match="needs a name before its ending"):
        check_output(tmp_path / ".gif", 8, False)


@pytest.mark.parametrize("name", ["a.jpg", "a.jpeg", "a.png"])
def test_pictures_hold_one_frame(tmp_path, name):
    check_output(tmp_path / name, 1, False)
    with pytest.raises(UsageError, match=r"holds one frame, but `video_length` is 8"):
        check_output(tmp_path / name, 8, False)


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.mp4", "new", "deep/er/a.gif", "deep/new/"])
@pytest.mark.parametrize("video_length", [1, 8])
def test_a_check_that_passes_changes_nothing(tmp_path, name, video_length):
    (tmp_path / "there.gif").write_bytes(b"before")
    before = everything(tmp_path)
    check_output(f"{tmp_path}/{name}", video_length, False)
    assert everything(tmp_path) == before


NAMES = ["a.gif", "a.webp", "a.mp4", "a.png", "a.jpg", "clip"]


def write_result(path: Path) -> None:
    write_video(path, np.arange(48, dtype=np.uint8).reshape(1, 4, 4, 3), 1000, {})


@pytest.mark.parametrize("name", NAMES)
def test_a_result_needs_overwrite(tmp_path, name):
    path = tmp_path / name
    write_result(path)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="`overwrite`"):
        check_output(path, 1, False)
    check_output(path, 1, True)
    assert everything(tmp_path) == before


def test_an_empty_file_has_nothing_to_lose(tmp_path):
    (tmp_path / "a.gif").touch()
    check_output(tmp_path / "a.gif", 8, True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("content", ["text", "another program's"])
def test_what_another_program_wrote_is_never_replaced(tmp_path, name, content):
    path = tmp_path / name
    file = path if path.suffix else path / "frame_0001.png"
    file.parent.mkdir(exist_ok=True)
    if content == "text" or name == "a.mp4":
        file.write_bytes(b"export PATH")
    else:
        Image.new("RGB", (8, 8), "red").save(file)
    before = everything(tmp_path)
    with pytest.raises(UsageError, match="was not written by hotshot-jax"):
        check_output(path, 1, True)
    with pytest.raises(UsageError, match="was not written by hotshot-jax"):
        write_video(path, np.zeros((1, 4, 4, 3), np.uint8), 1000, {}, overwrite=True)
    assert everything(tmp_path) == before


def test_one_foreign_frame_keeps_a_folder(tmp_path):
    write_result(tmp_path / "clip")
    Image.new("RGB", (8, 8)).save(tmp_path / "clip" / "frame_0001.png")
    with pytest.raises(UsageError, match=r"frame_0001\.png was not written by hotshot-jax"):
        check_output(tmp_path / "clip", 8, True)


@pytest.mark.parametrize("kind", ["folder", "link"])
def test_frames_are_plain_files(tmp_path, kind):
    write_result(tmp_path / "clip")
    entry = tmp_path / "clip" / "frame_0001.png"
    entry.mkdir() if kind == "folder" else entry.symlink_to("frame_0000.png")
    with pytest.raises(UsageError, match=r"other files in it, such as frame_0001\.png"):
        check_output(tmp_path / "clip", 8, True)


@pytest.mark.parametrize("overwrite", [False, True])
def test_nothing_is_written_through_a_dead_link(tmp_path, overwrite):
    (tmp_path / "x.gif").symlink_to(tmp_path / ".bashrc")
    (tmp_path / "outputs").symlink_to(tmp_path / "unmounted")
    for path in ("x.gif", "outputs/x.gif", "outputs/", "outputs/deep/frames/"):
        with pytest.raises(UsageError, match=r"`output` .* is a symbolic link to .*not there"):
            check_output(f"{tmp_path}/{path}", 8, overwrite)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["outputs", "x.gif"]


def test_a_link_to_something_else_is_not_followed(tmp_path):
    (tmp_path / ".bashrc").write_text("alias ll='ls -l'")
    (tmp_path / "x.gif").symlink_to(".bashrc")
    with pytest.raises(UsageError, match="was not written by hotshot-jax"):
        check_output(tmp_path / "x.gif", 8, True)


@pytest.mark.parametrize("name", ["a.gif", "clip"])
def test_permissions_stay(tmp_path, name):
    write_result(tmp_path / name)
    mode = 0o600 if name == "a.gif" else 0o700
    (tmp_path / name).chmod(mode)
    write_video(tmp_path / name, np.ones((1, 4, 4, 3), np.uint8), 1000, {}, overwrite=True)
    assert stat.S_IMODE((tmp_path / name).stat().st_mode) == mode


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_where_a_file_is_expected(tmp_path, overwrite):
    (tmp_path / "a.gif").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        check_output(tmp_path / "a.gif", 8, overwrite)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_where_a_folder_is_expected(tmp_path, overwrite):
    (tmp_path / "a").write_bytes(b"before")
    with pytest.raises(UsageError, match="is a file"):
        check_output(f"{tmp_path}/a/", 8, overwrite)
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "a", 8, overwrite)


def test_a_file_in_the_place_of_a_parent(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match=r"file is a file, not a folder"):
        check_output(tmp_path / "file" / "below" / "a.gif", 8, False)


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_with_other_files_is_never_replaced(tmp_path, overwrite):
    folder = tmp_path / "clip"
    folder.mkdir()
    (folder / "frame_0000.png").write_bytes(b"")
    (folder / "thesis.txt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"other files in it, such as thesis\.txt"):
        check_output(folder, 8, overwrite)


@pytest.mark.parametrize("path", ["./", "../", ".."])
def test_the_current_folder_is_never_replaced(tmp_path, monkeypatch, path):
    here = tmp_path / "parent" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    with pytest.raises(UsageError, match="folder that this runs in"):
        check_output(path, 8, True)


def test_a_place_that_refuses_files(monkeypatch, tmp_path):
    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(write.os, "open", refuse)
    with pytest.raises(UsageError, match=r"cannot be written to \(Permission denied\)"):
        check_output(tmp_path / "a.gif", 8, False)


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs Linux's /proc")
def test_a_file_system_that_refuses_files():
    with pytest.raises(UsageError, match="cannot be written"):
        check_output("/proc/a.gif", 8, False)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(UsageError, match="cannot be written to"):
            check_output(tmp_path / "a.gif", 8, False)
    finally:
        tmp_path.chmod(0o700)


def test_too_long_a_name(tmp_path):
    with pytest.raises(UsageError, match="cannot be written: File name too long"):
        check_output(tmp_path / ("a" * 300 + ".gif"), 8, False)


def test_a_pipe_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "a.gif")
    with pytest.raises(UsageError, match="not a plain file"):
        check_output(tmp_path / "a.gif", 8, True)


def test_mp4_without_ffmpeg(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    with pytest.raises(HotshotError, match="ffmpeg, which was not found"):
        check_output(tmp_path / "a.mp4", 8, False)
    check_output(tmp_path / "a.gif", 8, False)


def test_frames_are_listed_in_order(tmp_path):
    names = [frame_file_name(index) for index in (2, 10000, 9999, 10)]
    for name in [*names, "other.png", "frame_1.png"]:
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in frame_files(tmp_path)] == [
        "frame_0002.png",
        "frame_0010.png",
        "frame_9999.png",
        "frame_10000.png",
    ]
