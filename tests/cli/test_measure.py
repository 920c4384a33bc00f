import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hotshot_jax import compare_frames, measure_frames, write_video
from hotshot_jax.cli.measure.command import main


def frames_of(count: int, size: tuple[int, int] = (24, 32), seed: int = 0) -> np.ndarray:
    """Blocks of colour, so that a GIF holds them exactly."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 3, 4, 3), np.uint8)
    return blocks.repeat(size[0] // 3, axis=1).repeat(size[1] // 4, axis=2)


@pytest.fixture
def clips(tmp_path: Path) -> dict[str, Path]:
    frames = frames_of(9)
    frames[4] = frames[3]
    found = {}
    for name in ("a.gif", "a.webp", "a.mp4", "folder/"):
        write_video(f"{tmp_path}/{name}", frames, 900, {}, lossless=True)
        found[name] = tmp_path / name
    write_video(tmp_path / "short.gif", frames[:5], 500, {})
    write_video(tmp_path / "small.gif", frames_of(9, (12, 32)), 900, {})
    write_video(tmp_path / "still.png", frames[:1], 1, {})
    (tmp_path / "cut.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:700])
    (tmp_path / "text.gif").write_text("no clip")
    found["frames"] = frames
    return found


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return status, out, err


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "folder/"])
def test_every_kind_of_clip_tells_what_its_frames_do(
    name: str, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, _ = run(capsys, clips[name], "--json", "--against", clips["folder/"])
    report = json.loads(out)
    expected = measure_frames(clips["frames"])
    assert status == 0 and report["file"] == str(clips[name])
    assert report["differences"] == pytest.approx(expected.differences)
    assert report["loop_gap"] == pytest.approx(expected.loop_gap)
    assert report["flicker"] == pytest.approx(expected.flicker)
    assert report["colours"] == list(expected.colours)
    assert report["duplicates"] == [4] and report["last_equals_first"] is False
    # Infinite there, for which JSON has no word.
    assert report["against"]["psnr"] is None and report["against"]["error"] == 0
    assert report["against"]["ssim"] == pytest.approx(1)


def test_a_lossy_clip_beside_its_frames(
    clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, out, _ = run(capsys, clips["a.mp4"], "--json", "--against", clips["folder/"])
    told = json.loads(out)["against"]
    assert 25 < told["psnr"] < 60 and 0.8 < told["ssim"] < 1 and len(told["psnr_of_frames"]) == 9


def test_several_clips_give_a_table_a_plot_and_a_sheet(
    tmp_path: Path, clips: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    plot, sheet = tmp_path / "plot.png", tmp_path / "sheet.png"
    arguments = [clips["a.gif"], clips["a.webp"], "--plot", plot, "--sheet", sheet]
    for _ in range(2):
        status, out, err = run(capsys, *arguments)
        assert status == 0 and str(plot) in err and str(sheet) in err
    table = out.split("\n\n")[0].splitlines()
    expected = measure_frames(clips["frames"])
    assert len(table) == 3 and "PSNR" not in table[0]
    assert f"{expected.loop_gap:.3f}" in table[1] and "32x24" in table[1]
    assert "equal to the frame before: 4" in out
    with Image.open(plot) as image:
        drawn = np.asarray(image.convert("RGB"))
    for colour in ((0, 114, 178), (213, 94, 0)):
        assert (drawn == colour).all(axis=-1).sum() > 50
    with Image.open(sheet) as image:
        # Two rows of frames for each clip: eight, and the ninth.
        assert image.height > 4 * 96 and image.width > 8 * 128
    _, out, _ = run(capsys, clips["a.mp4"], "--against", clips["a.gif"])
    assert "PSNR" in out and "SSIM" in out


def test_a_long_clip_is_summed_up(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_video(tmp_path / "long.webp", frames_of(70, (3, 4)), 7000, {})
    status, out, _ = run(capsys, tmp_path / "long.webp", "--sheet", tmp_path / "s.png")
    assert status == 0 and "70 frames; --json lists" in out
    status, out, _ = run(capsys, tmp_path / "long.webp", "--json")
    assert len(json.loads(out)["differences"]) == 69


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "CLIP"),
        (["none.gif"], 2, "none.gif does not exist"),
        (["still.png"], 2, "still.png has one frame"),
        (["a.gif", "--against", "still.png"], 2, "still.png has one frame"),
        (["a.gif", "--against", "short.gif"], 2, "5 frames of 32x24. Only clips of one size"),
        (["a.gif", "--against", "small.gif"], 2, "9 frames of 32x12. Only clips of one size"),
        (["a.gif", "--against", "none.gif"], 2, "none.gif does not exist"),
        (["text.gif"], 1, "not a picture or clip"),
        (["a.gif", "cut.gif"], 1, "cut.gif"),
        (["gs://bucket/a.gif"], 2, "neither read nor written here"),
        (["a.gif", "--plot", "a.gif"], 2, "--plot a.gif is a picture"),
        (["a.gif", "--plot", "p.bmp"], 2, "--plot p.bmp"),
        (["a.gif", "--sheet", "text.png/s.png"], 2, "--sheet"),
        (["a.gif", "--plot", "p.png", "--sheet", "p.png"], 2, "name two files"),
        (["folder", "--sheet", "folder/s.png"], 2, "lies among the frames"),
        (["folder", "--plot", "folder/frame_0001.png"], 2, "--plot folder/frame_0001.png"),
        (["a.gif", "--sheet", "foreign.png"], 2, "--sheet foreign.png"),
        ([*(f"{n}.gif" for n in range(7)), "--plot", "p.png"], 2, "6 clips apart, not 7"),
        (["a.gif", "--agianst", "a.gif"], 2, "did you mean --against?"),
    ],
)
def test_wrong_usage_and_broken_clips(
    arguments: list[str],
    status: int,
    message: str,
    tmp_path: Path,
    clips: dict[str, Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("a file, no folder")
    Image.new("RGB", (4, 4)).save(tmp_path / "foreign.png")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
    found, out, err = run(capsys, *arguments)
    assert (found, out) == (status, "") and message in err, err
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()} == before


def test_a_clip_is_read_in_parts_as_it_is_at_once(
    clips: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [run(capsys, clips[name], "--json")[1] for name in ("a.gif", "a.mp4", "folder/")]
    monkeypatch.setattr("hotshot_jax.media.reading.clip._STREAMED_PIXELS", 2 * 24 * 32)
    assert whole == [run(capsys, clips[n], "--json")[1] for n in ("a.gif", "a.mp4", "folder/")]


def test_a_palette_error_is_that_of_the_frames_it_was_made_of(tmp_path: Path, capsys) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    write_video(tmp_path / "noise.gif", noise, 200, {})
    write_video(tmp_path / "frames/", noise, 200, {})
    _, out, _ = run(capsys, tmp_path / "noise.gif", "--against", tmp_path / "frames", "--json")
    report = json.loads(out)
    with Image.open(tmp_path / "noise.gif") as image:
        shown = []
        for index in range(2):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB")))
    assert report["against"]["psnr"] == pytest.approx(compare_frames(shown, noise).psnr)
    assert max(report["colours"]) <= 256 and report["against"]["error"] > 1


def test_names_of_any_characters(
    clips: dict[str, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips["a.gif"].parent)
    names = ["new\nline.gif", "escape\x1b[31m.gif", "not\udcffutf.gif", "狐.gif"]
    for name in names:
        Path(name).write_bytes(clips["a.gif"].read_bytes())
    status, out, _ = run(capsys, *names, "--plot", "p.png", "--sheet", "s.png")
    table = out.split("\n\n")[0].splitlines()
    assert status == 0 and len(table) == 5 and "\x1b" not in out and "new line.gif" in table[1]
    assert run(capsys, *names, "--json")[1].count('"file"') == 4
