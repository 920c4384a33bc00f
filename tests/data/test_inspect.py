import json
from pathlib import Path

import numpy as np
import pytest
from clips import write_data, write_sample
from PIL import Image
from test_folders import BROKEN, break_samples

from hotshot_jax.cli.data.command import build, inspect
from hotshot_jax.cli.data.inspect import contact_sheet
from hotshot_jax.data.open_data import open_data


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = inspect([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return status, out, err


def test_a_good_folder_is_reported_and_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_data(tmp_path / "in", [(512, 512), (520, 500), (672, 384), (64, 36)], frames=3)
    write_sample(tmp_path / "in/long", 5, (512, 512))
    sheet = tmp_path / "sheet.png"
    status, out, err = run(
        capsys, tmp_path / "in", "--frames", 3, "--json", "--contact_sheet", sheet
    )
    assert status == 0 and str(sheet) in err
    report = json.loads(out)
    assert (report["samples"], report["usable"], report["enlarged"]) == (5, 5, 2)
    assert report["frames"] == {"3": 4, "5": 1}
    assert report["sizes"]["512x512"] == 2
    assert {name: count for name, count in report["buckets"].items() if count} == {
        "512x512": 3,
        "672x384": 2,
    }
    with Image.open(sheet) as image:
        pixels = np.asarray(image)
    assert pixels.shape[0] > 5 * 96 and len(np.unique(pixels)) > 50


def test_bad_samples_are_listed_and_end_with_status_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_samples(tmp_path)
    status, out, err = run(capsys, tmp_path, "--contact_sheet", "")
    assert status == 1 and f"{len(BROKEN)} of {len(BROKEN)} samples cannot be used" in err
    assert all(message in out for message in BROKEN.values())
    assert "Traceback" not in err


def test_records_and_shapes_are_reported_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    arguments = ["--kind", "shapes", "--length", "4", "--size", "16", "--output", "set"]
    assert build(arguments) == 0
    for data, kind in (("set", "records"), ("shapes:train?length=4&size=16", "shapes")):
        status, out, _ = run(capsys, data, "--resolution", 16)
        assert status == 0 and f"({kind}): 4 samples, 4 usable" in out
        assert (tmp_path / "contact_sheet.png").stat().st_size > 1000
        (tmp_path / "contact_sheet.png").unlink()


@pytest.mark.parametrize(
    "arguments", [["none"], [".", "--frames", "0"], [".", "--resolution", "7"]]
)
def test_wrong_usage(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *arguments)
    assert status == 2 and "Traceback" not in err and not list(tmp_path.iterdir())


def test_a_clip_that_breaks_is_named_on_the_sheet(tmp_path: Path) -> None:
    write_data(tmp_path, [(32, 32)], frames=1)
    clip = open_data(tmp_path, 1).source[0]
    whole = contact_sheet([clip])
    (tmp_path / "sample_0/0.png").unlink()
    broken = contact_sheet([clip])
    assert (whole != 250).sum() > (broken[: whole.shape[0], : whole.shape[1]] != 250).sum() > 100


def test_the_sheet_does_not_become_a_sample(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_data(tmp_path, [(32, 32)], frames=2)
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, ".", "--frames", 2)
    assert status == 0 and "no contact sheet is drawn" in err
    status, _, err = run(capsys, ".", "--frames", 2, "--contact_sheet", "sample_0/9.png")
    assert status == 2 and "lies among the samples" in err
    assert [path.name for path in tmp_path.iterdir()] == ["sample_0"]


def test_what_training_would_learn_wrongly_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_sample(tmp_path / "in/a", 6, prompt="word " * 76)
    write_sample(tmp_path / "in/b", 6, prompt="the same pictures")
    write_sample(tmp_path / "in/c", 2, seed=3, names=["0.png", "2.png"])
    for number in range(6):
        level = (40 if number < 3 else 200) + number
        Image.new("RGB", (32, 32), (level,) * 3).save(tmp_path / f"in/c/{2 * number}.png")
    arguments = (tmp_path / "in", "--frames", 2, "--contact_sheet", "")
    status, out, _ = run(capsys, *arguments, "--json")
    report = json.loads(out)
    told = {tuple(each["names"]) for each in report["warnings"]}
    assert status == 0 and told == {("a",), ("c",), ("b like a",)} and report["looked_at"] == 3
    out = run(capsys, *arguments)[1]
    assert "clips that look like an earlier one: 1 (b like a)" in out
    assert "of more than the 75 tokens" in out and "another scene may begin: 1 (c)" in out
