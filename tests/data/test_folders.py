import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from clips import write_data, write_sample
from PIL import Image

from hotshot_jax.data import folders
from hotshot_jax.data.folders import open_folders, scan_folders
from hotshot_jax.errors import HotshotError, UsageError


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def messages(root: Path, frames: int = 8) -> list[str]:
    return [problem.message for problem in scan_folders(root, frames).problems]


def test_frames_come_in_natural_order_whatever_their_endings(tmp_path: Path) -> None:
    names = ["0.JPG", "1.jpeg", "2.webp", "3.png", "9.Png", "10.png", "11.PNG", "100.jpg"]
    pictures = write_sample(tmp_path / "s", names=names, prompt=" ein Kätzchen \n")
    (tmp_path / "s" / ".12.png").write_bytes(b"")
    (tmp_path / "s" / "._0.jpg").write_bytes(b"\0")
    (tmp_path / "s" / "notes.md").write_text("not a frame")
    (tmp_path / ".hidden").mkdir()
    source, scan = open_folders(tmp_path, 8)
    assert not scan.problems and scan.names == ("s",)
    clip = source[0]
    assert clip.prompt == "ein Kätzchen"
    assert [Path(name).name for name in clip.picture_names] == names
    for index in (3, 4, 5, 6):
        np.testing.assert_array_equal(clip.frame(index), pictures[index])
    assert source.table.tolist() == [(32, 32, 8)]


def test_samples_come_in_natural_order_and_may_be_nested(tmp_path: Path) -> None:
    for name in ("b/sample_10", "b/sample_9", "a"):
        write_sample(tmp_path / name, 2, prompt=name)
    source, _ = open_folders(tmp_path, 2)
    assert [source.name(i) for i in range(3)] == ["a", "b/sample_9", "b/sample_10"]
    assert [source[i].prompt for i in range(3)] == ["a", "b/sample_9", "b/sample_10"]


def test_the_folder_itself_may_be_the_one_sample(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 3)
    source, _ = open_folders(tmp_path / "s", 3)
    assert len(source) == 1
    assert source[0].picture_names[0] == "0.png"


def test_a_byte_order_mark_is_no_part_of_the_prompt(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 1)
    (tmp_path / "s" / "prompt.txt").write_bytes(b"\xef\xbb\xbfa dog")
    assert open_folders(tmp_path, 1)[0][0].prompt == "a dog"


def test_links_that_lead_back_are_followed_once(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 1)
    (tmp_path / "s" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "t").symlink_to(tmp_path / "s", target_is_directory=True)
    source, scan = open_folders(tmp_path, 1)
    assert len(source) == 1
    assert list(map(str, scan.left_out)) == [
        "links to folders that are read already: 2 (s/loop, t)"
    ]


def test_missing_and_empty_data_are_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("none", "does not exist"),
        ("file", "not a folder"),
        ("empty", "no samples"),
    ]:
        with pytest.raises(UsageError, match=message) as raised:
            open_folders(tmp_path / name, 8)
        assert name in str(raised.value)


def test_a_folder_with_only_a_prompt_is_told(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_text("a dog")
    with pytest.raises(HotshotError, match="has 0 frames, but 8 are needed"):
        open_folders(tmp_path, 8)


BROKEN = {
    "no_prompt": "no_prompt/prompt.txt: is missing",
    "empty_prompt": "empty_prompt/prompt.txt: is empty",
    "latin_prompt": "latin_prompt/prompt.txt: is not UTF-8 text (byte 5 is 0xe9)",
    "no_frames": "no_frames: has 0 frames, but 8 are needed",
    "few_frames": "few_frames: has 7 frames, but 8 are needed",
    "unequal": "unequal/5.png: is 40x32 pixels, but 0.png is 32x32",
    "zero_bytes": "zero_bytes/3.png: is empty (zero bytes)",
    "truncated": "truncated/3.png: is cut short or damaged",
    "truncated_jpeg": "truncated_jpeg/3.jpg: is cut short or damaged",
    "text": "text/3.png: is not a JPEG, PNG or WebP picture",
    "bomb": "bomb/3.png: has too many pixels to be decoded safely",
    "gif": "gif/3.png: is not a JPEG, PNG or WebP picture",
    "hollow": "hollow: has 0 frames",
}


def break_samples(root: Path) -> None:
    for index, name in enumerate(BROKEN):
        write_sample(root / name, 7 if name == "few_frames" else 8, seed=index)
    (root / "no_prompt/prompt.txt").unlink()
    (root / "empty_prompt/prompt.txt").write_text(" \n")
    (root / "latin_prompt/prompt.txt").write_bytes("a caf\u00e9".encode("latin-1"))
    for file in (root / "no_frames").glob("*.png"):
        file.unlink()
    for file in (root / "hollow").iterdir():
        file.unlink()
    Image.new("RGB", (40, 32)).save(root / "unequal/5.png")
    (root / "zero_bytes/3.png").write_bytes(b"")
    whole = (root / "truncated/3.png").read_bytes()
    (root / "truncated/3.png").write_bytes(whole[: len(whole) // 2])
    Image.open(root / "truncated_jpeg/3.png").save(root / "truncated_jpeg/3.jpg", quality=95)
    (root / "truncated_jpeg/3.png").unlink()
    whole = (root / "truncated_jpeg/3.jpg").read_bytes()
    (root / "truncated_jpeg/3.jpg").write_bytes(whole[:-100])
    (root / "text/3.png").write_text("<html>404</html>")
    (root / "bomb/3.png").write_bytes(png_header(60000, 60000))
    Image.new("P", (32, 32)).save(root / "gif/3.png", format="GIF")


def test_every_problem_is_told_at_once_with_its_file(tmp_path: Path) -> None:
    break_samples(tmp_path)
    write_sample(tmp_path / "good")
    with pytest.raises(HotshotError) as raised:
        open_folders(tmp_path, 8)
    text = str(raised.value)
    assert f"{len(BROKEN)} of {len(BROKEN) + 1} samples" in text
    assert "`on_bad_sample` skip" in text
    for message in BROKEN.values():
        assert message in text
    assert "good/" not in text

    source, scan = open_folders(tmp_path, 8, on_bad_sample="skip")
    assert [source.name(i) for i in range(len(source))] == ["good"]
    assert {problem.sample for problem in scan.problems} == set(BROKEN)


def test_skipping_needs_a_good_sample_to_be_left(tmp_path: Path) -> None:
    break_samples(tmp_path)
    with pytest.raises(HotshotError, match="No sample is left"):
        open_folders(tmp_path, 8, on_bad_sample="skip")


def test_headers_alone_find_all_but_damage(tmp_path: Path) -> None:
    break_samples(tmp_path)
    bad = {problem.sample for problem in scan_folders(tmp_path, 8, "headers").problems}
    assert set(BROKEN) - bad == {"truncated", "truncated_jpeg"}


def test_too_many_pictures_to_decode_are_remarked_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_sample(tmp_path / "s", 2)
    assert not scan_folders(tmp_path, 2).remarks
    monkeypatch.setattr(folders, "_DECODE_UP_TO", 1)
    scan = scan_folders(tmp_path, 2)
    assert not scan.decoded and "not decoded" in scan.remarks[0]


def test_a_broken_link_is_an_unreadable_frame_and_a_folder_is_none(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 2)
    (tmp_path / "s" / "2.png").symlink_to("nowhere.png")
    (tmp_path / "s" / "3.png").symlink_to("3.png")
    write_sample(tmp_path / "s" / "4.png", 2)
    assert messages(tmp_path, 2) == [
        "s/2.png: cannot be read: No such file or directory",
        "s/3.png: cannot be read: Too many levels of symbolic links",
    ]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_prompt_is_told(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 1)
    (tmp_path / "s" / "prompt.txt").chmod(0)
    assert any("cannot be read" in message for message in messages(tmp_path, 1))


def test_a_frame_that_goes_away_later_is_named(tmp_path: Path) -> None:
    write_data(tmp_path, [(16, 16)], frames=2)
    clip = open_folders(tmp_path, 2)[0][0]
    (tmp_path / "sample_0/1.png").unlink()
    with pytest.raises(HotshotError, match=r"sample_0/1\.png: cannot be read"):
        clip.frame(1)
