"""What a run comes to: sums over its metrics, a picture of its losses, what is shown meanwhile."""

import dataclasses
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.cli.train import output, progress
from hotshot_jax.cli.train.output import least_held_out_loss, save_summary
from hotshot_jax.cli.train.progress import TrainingProgress
from hotshot_jax.errors import HotshotError
from hotshot_jax.training.running.pace import Pace, Smoothed
from hotshot_jax.training.running.summary import (
    Summary,
    describe_seconds,
    draw_losses,
    read_metrics,
)


def update(step: int, loss: float = 0.5, **changes: Any) -> dict[str, Any]:
    """Two seconds for eight samples."""
    return {
        "step": step,
        "loss": loss,
        "step_seconds": 2.0,
        "data_seconds": 0.5,
        "other_seconds": 0.0,
        "samples_per_second": 4.0,
        "devices": 8,
        **changes,
    }


def test_a_smoothed_loss_is_tensorboard_s() -> None:
    # tf_line_chart_data_utils: last = last * weight + (1 - weight) * value, over 1 - weight ** n.
    values = np.random.default_rng(0).uniform(0, 1, 50)
    smoothed, last = Smoothed(0.9), 0.0
    for number, value in enumerate(values, 1):
        last = last * 0.9 + 0.1 * value
        assert smoothed.add(value) == pytest.approx(last / (1 - 0.9**number))


def test_the_sums_of_a_run() -> None:
    metrics = [
        update(1, 1.0, other_seconds=60.0),
        update(2, 1.0, flop_utilisation=None),
        # Resumed on half of the devices.
        update(3, 1.0, devices=4, step_seconds=4.0, samples_per_second=2.0, other_seconds=30.0),
        {"step": 3, "loss_held_out": 0.7},
        {**update(4), "loss": None},
    ]
    summary = Summary.of(metrics, price=9.0)
    assert summary is not None
    hours = (62 * 8 + 2 * 8 + 34 * 4) / 3600
    assert summary.price == pytest.approx(9 * hours)
    assert dataclasses.replace(summary, price=None, device_hours=0.0, loss=1.0) == Summary(
        steps=3,
        samples=24,
        training_seconds=8.0,
        waited_seconds=1.5,
        other_seconds=90.0,
        device_hours=0.0,
        devices=4,
        loss=1.0,
        flop_utilisation=None,
        price=None,
    )
    assert summary.loss == pytest.approx(1.0)
    assert summary.describe() == (
        "3 steps in 8 s on 4 devices, 3 samples/s, 19% waiting for data, 2 min compiling, saving "
        "and validating, loss 1, price 1.62"
    )
    used = [update(1, flop_utilisation=0.5), update(2, flop_utilisation=0.2, step_seconds=4.0)]
    seen = Summary.of(used)
    assert seen is not None and seen.flop_utilisation == pytest.approx(0.3)
    assert Summary.of([{"step": 1, "loss_held_out": 1.0}]) is None


def test_a_picture_and_an_object_are_left_behind(tmp_path: Path) -> None:
    lines = [json.dumps(update(step, 1 / step)) for step in range(1, 900)]
    lines.insert(400, json.dumps({"step": 400, "loss_held_out": 0.5}))
    # Metrics of earlier releases, and a line that was cut short.
    lines[0] = json.dumps({k: update(1)[k] for k in ("step", "loss")})
    (tmp_path / "metrics.jsonl").write_text("\n".join([*lines, '{"step": 9']))
    summary = save_summary(tmp_path, None)
    assert summary is not None and summary.steps == 898
    assert json.loads((tmp_path / "summary.json").read_text()) == dataclasses.asdict(summary)
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    metrics = read_metrics(tmp_path / "metrics.jsonl")
    assert len(metrics) == 900
    both, alone = draw_losses(metrics), draw_losses(metrics[:300])
    assert both is not None and alone is not None and both.shape[0] > alone.shape[0]
    assert draw_losses([]) is None


def test_the_least_loss_on_held_out_data_is_that_of_before(tmp_path: Path) -> None:
    assert least_held_out_loss(tmp_path, 9) == math.inf
    lines = [{"step": step, "loss_held_out": loss} for step, loss in ((2, 0.5), (4, 0.7), (6, 0.1))]
    lines.append({"step": 3, "loss_held_out": None})
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, [update(1), *lines])))
    assert [least_held_out_loss(tmp_path, step) for step in (1, 5, 6)] == [math.inf, 0.5, 0.1]


def test_the_least_loss_is_what_the_first_host_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A host that cannot read the metrics, and one that sees less of them.
    monkeypatch.setattr(output, "first_of_all_hosts", lambda text: "0.1")
    assert least_held_out_loss(tmp_path, 9) == 0.1
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 2, "loss_held_out": 0.5}))
    assert least_held_out_loss(tmp_path, 9) == 0.1


def test_nothing_is_written_for_a_run_without_updates(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("")
    assert save_summary(tmp_path, 1.0) is None
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]
    with pytest.raises(OSError):
        save_summary(tmp_path / "gone", 1.0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (95, "2 min"),
        (4800, "1 h 20 min"),
        (3 * 86400 + 7200, "3 d 2 h"),
    ],
)
def test_times_in_words(seconds: float, words: str) -> None:
    assert describe_seconds(seconds) == words


def test_rate_and_time_left_are_those_of_the_last_updates() -> None:
    pace = Pace(1000)
    for step in range(1, 200):
        pace.add(step, update(step, step_seconds=100.0 if step < 100 else 2.0))
    assert pace.samples_per_second == pytest.approx(4.0)
    assert pace.waiting == pytest.approx(0.25)
    assert pace.seconds_left == pytest.approx(801 * 2.0)


class Screen(io.StringIO):
    def __init__(self, terminal: bool) -> None:
        super().__init__()
        self.terminal = terminal

    def isatty(self) -> bool:
        return self.terminal


def shown(monkeypatch: pytest.MonkeyPatch, screen: Screen, steps: int = 5, **how: Any) -> str:
    now = [0.0]
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    training = TrainingProgress(Pace(steps), **how)
    with training.shown(0):
        for step in range(1, steps + 1):
            now[0] += 20
            training.advance(step, update(step))
    return screen.getvalue()


def test_without_a_terminal_there_are_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, Screen(terminal=False)).splitlines()
    # The first, then one in 30 seconds, and the last.
    assert [line.split(":")[0] for line in lines] == [f"step {step} of 5" for step in (1, 3, 5)]
    assert lines[1] == ("step 3 of 5: loss 0.5000, 4 samples/s, 25% waiting for data, 4 s left")
    assert "\r" not in "".join(lines)
    assert shown(monkeypatch, Screen(terminal=False), quiet=True) == ""


def test_on_a_terminal_there_is_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    text = shown(monkeypatch, Screen(terminal=True))
    assert "training" in text and "5/5" in text and "samples/s" in text
    assert shown(monkeypatch, Screen(terminal=True), quiet=True) == ""


def test_a_picture_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(json.dumps(update(1)))
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(HotshotError):
        save_summary(tmp_path, None)
