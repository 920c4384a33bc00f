"""Where numbers and clips of a run go; TensorBoard and Weights & Biases by their own clients."""

import errno
import io
import json
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.train.plan import where_numbers_go
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.errors import HotshotError
from hotshot_jax.training.running import metrics
from hotshot_jax.training.running.metrics import (
    MetricsFile,
    Reports,
    TensorBoardReport,
    WandbReport,
    chosen_reports,
    open_reports,
)

FRAMES = np.random.default_rng(0).integers(0, 256, (4, 8, 16, 3), np.uint8)


def assert_is_the_clip(gif: bytes) -> None:
    with Image.open(io.BytesIO(gif)) as image:
        assert (image.n_frames, image.size) == (4, (16, 8))
        # Each frame has fewer than 256 colours, which a GIF keeps exactly.
        for index, frame in enumerate(FRAMES):
            image.seek(index)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), frame)


class FakeWriter:
    """What the two writers for TensorBoard have in common."""

    def __init__(self, folder: str):
        self.file_writer = self
        self.summaries: list[Any] = []
        self.scalars: list[Any] = []

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars.append((name, value, step))

    def add_summary(self, summary: Any, step: int) -> None:
        self.summaries.append((summary, step))


class Message:
    """Stands in for a protocol buffer message."""

    def __init__(self, **fields: Any):
        self.__dict__.update(fields)

    Value = Image = None  # type: ignore[assignment]


def test_clips_reach_tensorboard_without_moviepy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Message.Value = Message.Image = Message  # type: ignore[assignment]
    fakes = {"SummaryWriter": FakeWriter, "Summary": Message}
    monkeypatch.setattr(metrics.importlib, "import_module", lambda name: Message(**fakes))
    report = TensorBoardReport(tmp_path)
    report.numbers(3, {"loss": 0.5, "quarter": None})  # type: ignore[dict-item]
    report.video(3, "00", FRAMES)
    writer: Any = report._writer
    assert writer.scalars == [("loss", 0.5, 3)]
    ((summary, step),) = writer.summaries
    (value,) = summary.value
    assert (step, value.tag) == (3, "validation/00")
    assert (value.image.height, value.image.width) == (8, 16)
    assert_is_the_clip(value.image.encoded_image_string)


def test_tensorboard_by_its_own_client(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    report = TensorBoardReport(tmp_path)
    report.numbers(1, {"loss": 0.25})
    report.video(1, "00", FRAMES)
    report.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    values = {}
    content = file.read_bytes()
    while content:
        # A record is its length, a checksum, the bytes, and a checksum.
        (length,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + length])
        values |= {value.tag: (event.step, value) for value in event.summary.value}
        content = content[16 + length :]
    step, loss = values["loss"]
    assert (step, loss.simple_value) == (1, 0.25)
    assert_is_the_clip(values["validation/00"][1].image.encoded_image_string)


def test_weights_and_biases_offline_by_its_own_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    report = WandbReport(tmp_path, "project", "run", {"learning_rate": 1e-3})
    report.numbers(1, {"loss": 0.25})
    report.video(1, "00", FRAMES)
    report.close()
    # Its service writes the rest when it ends.
    wandb.teardown()
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    (clip,) = run.rglob("*.gif")
    assert_is_the_clip(clip.read_bytes())
    (log,) = run.glob("run-*.wandb")
    assert b"loss" in log.read_bytes()


def test_lines_of_later_steps_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"st')
    file = MetricsFile(path, 2)
    file.numbers(3, {"loss": float("nan")})
    file.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1}, {"step": 2}, {"step": 3, "loss": None}]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.symlink_to("/dev/full")
    file = MetricsFile.__new__(MetricsFile)
    file.path, file._file = path, path.open("wb", buffering=0)
    with pytest.raises(HotshotError, match=r"metrics\.jsonl cannot be written: No space left"):
        file.numbers(1, {"loss": 1.0})
    file.close()


def test_a_line_that_is_written_in_part_is_no_line(tmp_path: Path) -> None:
    class Short(io.BytesIO):
        def write(self, content: Any) -> int:
            return super().write(content[:5])

    file = MetricsFile(tmp_path / "metrics.jsonl", 0)
    file.close()
    file._file = Short()  # type: ignore[assignment]
    with pytest.raises(HotshotError, match="cannot be written") as caught:
        file.numbers(1, {"loss": 1.0})
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.ENOSPC


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match=r"none/metrics\.jsonl cannot be written"):
        MetricsFile(tmp_path / "none" / "metrics.jsonl", 0)


def test_a_report_that_fails_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class BrokenReport:
        calls = 0

        def numbers(self, step: int, values: Any) -> None:
            self.calls += 1
            raise ConnectionError("no network")

        video = close = numbers

    broken = BrokenReport()
    reports = Reports([MetricsFile(tmp_path / "metrics.jsonl", 0), broken])  # type: ignore[list-item]
    with caplog.at_level("WARNING", "hotshot_jax"):
        for step in range(3):
            reports.numbers(step, {"loss": 1.0})
    reports.close()
    assert broken.calls == 1 and "Broken failed" in caplog.text
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


class FakeWandb(types.ModuleType):
    """What is used of the client."""

    def __init__(self) -> None:
        super().__init__("wandb")
        self.starts: list[dict[str, Any]] = []
        self.logged: list[Any] = []

    def init(self, **options: Any) -> Any:
        self.starts.append(options)
        return types.SimpleNamespace(
            log=lambda values, step: self.logged.append((step, values)), finish=lambda: None
        )


def test_a_resumed_training_goes_on_in_its_run_at_weights_and_biases(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    wandb = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    for folder, last_step in (("a", 0), ("a", 3), ("b", 0)):
        reports = open_reports("auto", tmp_path / folder, "logs", "project", "run", {}, last_step)
        reports.numbers(last_step + 1, {"loss": 1.0})
        reports.close()
    first, resumed, other = (start["id"] for start in wandb.starts)
    assert first and first == resumed != other
    assert all(start["resume"] == "allow" for start in wandb.starts)
    assert [step for step, _ in wandb.logged] == [1, 4, 1]
    monkeypatch.setenv("WANDB_RUN_ID", "mine")
    WandbReport(tmp_path / "a", "project", "run", {})
    assert wandb.starts[-1]["id"] == "mine"


def test_by_default_numbers_go_to_what_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("wandb", "tensorboardX", "torch", "tensorboard")
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)  # type: ignore[arg-type]
    assert chosen_reports("auto") == ()
    assert "hotshot-jax[logging]" in where_numbers_go("auto")
    for installed, kinds in (
        (("torch",), ()),
        (("torch", "tensorboard"), ("tensorboard",)),
        (("tensorboardX",), ("tensorboard",)),
        (("wandb",), ("wandb",)),
        (names, ("tensorboard", "wandb")),
    ):
        with monkeypatch.context() as patch:
            for name in installed:
                patch.setitem(sys.modules, name, types.ModuleType(name))
            assert chosen_reports("auto") == kinds
            assert all(kind in where_numbers_go("auto") for kind in kinds)
    assert chosen_reports("all") == ("tensorboard", "wandb")
    assert chosen_reports("none") == ()
    assert TrainSettings().report_to == "auto"
