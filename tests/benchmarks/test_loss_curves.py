import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

from benchmarks.loss_curves import main, summary


def test_a_panel_for_each_run(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"step": step, "loss": 1 / step} for step in range(1, 301)]
    metrics.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"step": 300}]))
    output = tmp_path / "curves.svg"
    assert main([f"VAE={metrics}", f"A < B={metrics}", "--output", str(output)]) == 0
    picture = ElementTree.parse(output).getroot()
    lines = picture.findall(".//{*}polyline")
    assert len(lines) == 2
    heights = [float(point.split(",")[1]) for point in lines[0].attrib["points"].split()]
    # Downwards on the page, as the losses fall.
    assert heights == sorted(heights) and len(heights) == 100
    assert "A < B" in [text.text for text in picture.findall(".//{*}text")]


@pytest.mark.parametrize(("runs", "size"), [(1, (260, 190)), (4, (1040, 190)), (6, (1040, 380))])
def test_panels_fill_rows_of_four(tmp_path: Path, runs: int, size: tuple[int, int]) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.3}\n')
    output = tmp_path / "curves.svg"
    assert main([f"a={tmp_path}/metrics.jsonl"] * runs + ["--output", str(output)]) == 0
    picture = ElementTree.parse(output).getroot()
    assert (int(picture.attrib["width"]), int(picture.attrib["height"])) == size
    places = [group.attrib["transform"] for group in picture.findall("{*}g")]
    assert (
        len(set(places)) == runs
        and places[-1] == f"translate({(runs - 1) % 4 * 260},{size[1] - 190})"
    )


def test_quantiles_are_those_of_each_part() -> None:
    middles, quantiles = summary(np.arange(1.0, 21.0), np.arange(20.0), bins=2)
    np.testing.assert_allclose(middles, [5.5, 15.5])
    np.testing.assert_allclose(quantiles[1], [4.5, 14.5])
    np.testing.assert_allclose(quantiles[2] - quantiles[0], [7.2, 7.2])


@pytest.mark.parametrize("argument", ["metrics.jsonl", "a=missing.jsonl"])
def test_wrong_arguments(argument: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([argument, "--output", str(tmp_path / "x.svg")]) in (1, 2)
    assert "loss_curves: error" in capsys.readouterr().err
