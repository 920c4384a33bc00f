"""Nothing that lies among the data is passed over without a word, and frames are frames."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from clips import write_sample
from PIL import Image
from test_build import built, failed, write_gif

from hotshot_jax.cli.data.command import inspect
from hotshot_jax.data.folders import open_folders
from hotshot_jax.data.frame_names import GAPS, SAME_NUMBER, UNNUMBERED, sort_out_frames
from hotshot_jax.data.left_out import Tally, kind_of_file
from hotshot_jax.data.open_data import open_data
from hotshot_jax.errors import UsageError


@pytest.mark.parametrize(
    ("names", "frames", "others", "missing"),
    [
        ("0.jpg 1.jpg 10.jpg 2.jpg", "0.jpg 1.jpg 2.jpg 10.jpg", {}, 3),
        ("0.jpg 1.jpg preview.jpg", "0.jpg 1.jpg", {"preview.jpg": UNNUMBERED}, None),
        ("1.jpg 2.png 2.jpg 3.jpg", "1.jpg 2.jpg 3.jpg", {"2.png": SAME_NUMBER}, None),
        ("1.png 2.png 2.JPG", "1.png 2.png", {"2.JPG": SAME_NUMBER}, None),
        ("1.jpg 01.jpg 2.jpg", "01.jpg 2.jpg", {"1.jpg": SAME_NUMBER}, None),
        # A constant stride is no gap: people extract every fourth frame of a film.
        ("0.png 4.png 8.png", "0.png 4.png 8.png", {}, None),
        ("0.png 4.png 12.png", "0.png 4.png 12.png", {}, 8),
        ("f_1.png f_2.png f_4.png", "f_1.png f_2.png f_4.png", {}, 3),
        ("f_1.png f_2.png cover.png", "f_1.png f_2.png", {"cover.png": UNNUMBERED}, None),
        ("0.png 0_mask.png 1.png 1_mask.png", "0.png 1.png",
         {"0_mask.png": UNNUMBERED, "1_mask.png": UNNUMBERED}, None),
        # Two numbers a name order the frames and say nothing of gaps.
        ("00_59.png 01_00.png 01_02.png", "00_59.png 01_00.png 01_02.png", {}, None),
        # Without a pattern that most have, all are frames, as ever.
        ("a.png b.png c.png", "a.png b.png c.png", {}, None),
        ("a1.png b2.png c.png", "a1.png b2.png c.png", {}, None),
        ("", "", {}, None),
    ],
)  # fmt: skip
def test_frames_are_told_from_other_pictures(
    names: str, frames: str, others: dict[str, str], missing: int | None
) -> None:
    sorted_out = sort_out_frames(reversed(names.split()))
    assert " ".join(sorted_out.frames) == frames
    assert {name: kind for kind, name in sorted_out.others} == others
    assert sorted_out.missing == missing


def test_kinds_are_counted_and_the_first_are_named() -> None:
    tally = Tally()
    for number in range(5):
        tally.add("videos", f"{number}.mov")
    tally.add("texts", "a.txt")
    assert list(map(str, tally.left_out())) == [
        "videos: 5 (0.mov, 1.mov, 2.mov, …)",
        "texts: 1 (a.txt)",
    ]


def test_what_lies_among_folders_of_frames_is_told(tmp_path: Path) -> None:
    write_sample(tmp_path / "s", 3, names=["0.png", "1.png", "3.png"])
    write_sample(tmp_path / "t", 2)
    for name in ("s/preview.jpg", "s/1.jpg", "contact_sheet.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    for name in (
        "s/a.mpg",
        "s/b.ts",
        "c.WMV",
        "t/d.mp4",
        "t/UP.TXT",
        "t/e.bmp",
        "s/.hid",
        "x.csv",
    ):
        (tmp_path / name).write_text("")
    source, scan = open_folders(tmp_path, 2)
    assert [len(source[i].pictures) for i in range(len(source))] == [3, 2]
    found = {each.kind: each.names for each in scan.left_out}
    videos = kind_of_file("a.mpg", ())
    assert found == {
        videos: ("c.WMV", "s/a.mpg", "s/b.ts"),
        kind_of_file("x.csv", ()): ("x.csv",),
        "pictures beside folders of frames": ("contact_sheet.png",),
        kind_of_file(".hid", ()): ("s/.hid",),
        SAME_NUMBER: ("s/1.jpg",),
        UNNUMBERED: ("s/preview.jpg",),
        GAPS: ("s: no 2",),
        "videos among folders of frames": ("t/d.mp4",),
        kind_of_file("UP.TXT", ()): ("t/UP.TXT",),
        kind_of_file("e.bmp", ()): ("t/e.bmp",),
    }
    assert sum(each.count for each in scan.left_out) == 12


def test_inspect_lists_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_sample(tmp_path / "in/s", 2)
    (tmp_path / "in/s/film.mpg").write_text("")
    arguments = [str(tmp_path / "in"), "--frames", "2", "--contact_sheet", ""]
    assert inspect([*arguments, "--json"]) == 0
    (left_out,) = json.loads(capsys.readouterr().out)["left_out"]
    assert (left_out["count"], left_out["names"]) == (1, ["s/film.mpg"])
    assert inspect(arguments) == 0
    assert "are): 1 (s/film.mpg)" in capsys.readouterr().out


def make_videos(root: Path, names: Sequence[str]) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_gif(root / name, 8)


def test_what_lies_among_videos_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "in"
    make_videos(source, ["a.gif", "b.gif", "more/c.GIF", ".trash/d.gif"])
    for name in ("e.mpg", "f.ts", "g.wmv", "h.webp", "UP.TXT", "more/notes.jsonl", "other.json"):
        (source / name).write_text("")
    (source / "a.txt").write_text("from its own file")
    (tmp_path / "elsewhere").mkdir()
    (source / "link").symlink_to(tmp_path / "elsewhere")
    lines = [
        {"file_name": name, "prompt": name} for name in ("b.gif", "more/c.GIF", "gone.mp4", "e.mpg")
    ]
    (source / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    report = built(capsys, "--source", source, "--output", tmp_path / "out")
    assert report["clips"] == 3
    assert sorted(line.partition(": ")[2] for line in report["left_out"]) == [
        "1 (.trash)",
        "1 (UP.TXT)",
        "1 (h.webp)",
        "1 (link)",
        "2 (metadata.jsonl line 3: gone.mp4, metadata.jsonl line 4: e.mpg)",
        "2 (other.json, more/notes.jsonl)",
        "3 (e.mpg, f.ts, g.wmv)",
    ]


def test_where_nothing_can_be_read_it_is_told_what_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a.mpg", "b.ts"):
        (tmp_path / "in" / name).write_text("")
    for kind in ("auto", "videos"):
        arguments = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--kind", kind)
        status, message = failed(capsys, *arguments)
        assert status == 2 and "2 (a.mpg, b.ts)" in message
    with pytest.raises(UsageError, match=r"2 \(a\.mpg, b\.ts\)"):
        open_data(tmp_path / "in")
    write_gif(tmp_path / "in/c.gif", 8)
    assert inspect([str(tmp_path / "in")]) == 2
    assert "python -m hotshot_jax.data.build" in capsys.readouterr().err


def test_videos_of_too_many_frames_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from hotshot_jax.data import origins
    from hotshot_jax.media.reading.clip import ReadLimits
    from hotshot_jax.media.reading.read import open_clip

    make_videos(tmp_path / "in", ["a.gif", "long.gif"])
    write_gif(tmp_path / "in/long.gif", 12)
    for name in ("a", "long"):
        (tmp_path / f"in/{name}.txt").write_text(name)
    monkeypatch.setattr(origins, "open_clip", lambda path: open_clip(path, ReadLimits(10)))
    arguments = ("--source", tmp_path / "in", "--output", tmp_path / "out")
    _, message = failed(capsys, *arguments)
    assert "1 of 2 samples" in message and "long.gif has more than 10 frames" in message
    report = built(capsys, *arguments, "--on_bad_sample", "skip")
    assert report["clips"] == 1 and "long.gif has more than 10 frames" in report["left_out"][0]
