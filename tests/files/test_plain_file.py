import os
import socket
from pathlib import Path

import pytest

from hotshot_jax.files.plain_file import check_plain_folder, open_plain, read_bytes, read_text


def test_a_plain_file_is_read_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfone\r\ntwo\rthree\n")
    (tmp_path / "link").symlink_to("a")
    assert read_text(tmp_path / "link", 100) == "one\ntwo\nthree\n"
    with open_plain(tmp_path / "link") as file:
        assert file.read(4) == b"\xef\xbb\xbfo"
        assert file.seek(0) == 0


def test_the_size_is_limited(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    assert read_bytes(tmp_path / "a", 5) == b"12345"
    with pytest.raises(OSError, match="more than 4 bytes"):
        read_bytes(tmp_path / "a", 4)
    with pytest.raises(OSError, match="more than 4 bytes"):
        check_plain_folder(tmp_path, 4)
    check_plain_folder(tmp_path, 5)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="a named pipe, not a plain file"):
        open_plain(tmp_path / "pipe")
    with pytest.raises(OSError, match="a named pipe, not a plain file"):
        check_plain_folder(tmp_path)


def test_what_else_is_no_plain_file_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for path in ("socket", "/dev/zero", tmp_path, "none", "a\0b", "\ud800"):
            with pytest.raises(OSError):
                open_plain(path)
