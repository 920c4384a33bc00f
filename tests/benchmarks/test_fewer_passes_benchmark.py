"""The benchmarks of kept features: costs, lists of full steps, tables."""

import itertools
import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from benchmarks.passes import cached_step, fewer_passes
from benchmarks.passes.cache_schedule import best_steps, feature_errors, total_error
from benchmarks.passes.fewer_passes import KEPT_SHARE, Way, plot, table, ways
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.sampling.step_plan import check_cache_interval


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (5, 1), (7, 3), (8, 5), (6, 6)])
def test_the_best_list_is_that_of_all_lists(steps: int, count: int) -> None:
    random = np.random.default_rng(steps)
    errors = random.random((steps, steps))
    found = best_steps(errors, count)
    rest = itertools.combinations(range(1, steps), count - 1)
    least = min(total_error(errors, (0, *each)) for each in rest)
    assert len(found) == count
    check_cache_interval(found, steps)
    assert total_error(errors, found) == pytest.approx(least)


def test_features_that_change_early_are_kept_late() -> None:
    places = 1 - 0.5 ** np.arange(10.0)
    errors = np.abs(places[:, None] - places)
    assert best_steps(errors, 4) == [0, 1, 2, 4]


def test_errors_are_those_of_the_features(tiny_checkpoint: Path) -> None:
    pipeline = HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")
    call: dict[str, Any] = {"height": 16, "width": 16, "video_length": 2, "num_inference_steps": 4}
    errors = feature_errors(pipeline, ["a fox"], 3, call)
    assert errors.shape == (4, 4)
    assert np.allclose(np.diag(errors), 0, atol=1e-3)
    assert (errors[~np.eye(4, dtype=bool)] > 0.01).all()
    np.testing.assert_array_equal(feature_errors(pipeline, ["a fox"], 3, call), errors)


def test_costs_are_those_of_full_size() -> None:
    assert Way("a", "euler").cost == 30
    assert Way("a", "euler", cache_interval=3).cost == pytest.approx(10 + 20 * KEPT_SHARE)
    assert Way("a", "euler", guidance_interval=(0.0, 0.5)).cost == 22.5
    both = Way("a", "euler", 30, 2, (0.0, 0.5))
    # Step 15 begins without guidance, and is full although it is odd.
    assert both.cost == pytest.approx(8 + 7 * KEPT_SHARE + 0.5 * (8 + 7 * KEPT_SHARE))
    names = [way.name for way in ways(("euler", "ddim"), {"ddim": [(0, 1)]})]
    assert len(set(names)) == len(names)
    assert [name for name in names if "0,1" in name] == ["ddim, 30 steps, cache 0,1"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0,1", "expected one of the schedulers"),
        ("unipc:0,1", "expected one of the schedulers"),
        ("ddim:0,b", "0,b is no list of steps"),
        ("ddim:0,30", "names step 30"),
    ],
)
def test_lists_are_those_of_a_scheduler(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fewer_passes.main(["--schedulers", "ddim", "--list", text]) == 2
    assert message in capsys.readouterr().err


def test_tables_and_plots_show_every_way() -> None:
    record = {"seconds": 2.0, "all": True, "psnr": 30.0}
    found = {way: [record, record | {"all": False}] for way in ways(("euler", "ddim"), {})}
    text = table(found)
    assert "| euler, 30 steps, cache 3 | 10.5 | 2.00 s | 1.00 | 50.0% | 30.0 dB | 2 |" in text
    drawing = ElementTree.fromstring(plot(found))
    marks = [each for each in drawing.iter() if each.tag.endswith(("circle", "rect"))]
    # Two panels, in one of which whole runs are left out; the background is a rectangle, too.
    assert len(marks) == 2 * len(found) - 2 + 1


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = [Way("plain steps", "ddim", 30), Way("kept features", "ddim", 30, 15)]
    monkeypatch.setattr(fewer_passes, "ways", lambda *_: few)
    line = ["--results", str(tmp_path / "a.jsonl"), "--count", "1", "--size", "64", "--json"]
    assert fewer_passes.main(line) == 0
    assert "2 clips made" in capsys.readouterr().out
    plotted = [*line, "--resume", "--report", "--plot", str(tmp_path / "a.svg")]
    assert fewer_passes.main(plotted) == 0
    output = capsys.readouterr().out
    assert "0 clips made" in output
    report = json.loads(output.splitlines()[-1])
    assert report["ways"][0]["psnr"] == 99 > report["ways"][1]["psnr"]
    assert "<svg" in (tmp_path / "a.svg").read_text()


@pytest.mark.slow
def test_the_tiny_unet_saves_operations_and_time(capsys: pytest.CaptureFixture[str]) -> None:
    line = "--size tiny --counted tiny --interval 3 --steps 3 --json"
    assert cached_step.main(line.split()) == 0
    report = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert report["operations"]["1"] > 1.5 * report["operations"]["3"]


@pytest.mark.slow
def test_a_third_of_the_steps_takes_a_third_of_the_operations() -> None:
    size = cached_step.unet_size("full")
    full, kept = (cached_step._flops(size, reuse=reuse) for reuse in (False, True))
    assert 30 * full > 2.2 * (10 * full + 20 * kept)
    assert kept / full == pytest.approx(KEPT_SHARE, rel=0.01)
