"""Short runs of train.py on a few small clips."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.cli.train.command import main
from tests.data.clips import write_data

ROOT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run left behind."""

    status: int
    stderr: str
    output: Path

    @property
    def metrics(self) -> list[dict[str, Any]]:
        lines = (self.output / "metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    @property
    def losses(self) -> list[tuple[int, float, float]]:
        return [(m["step"], m["loss"], m["grad_norm"]) for m in self.metrics if "loss" in m]


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three clips of one bucket, four frames of 16 x 16 each."""
    folder = tmp_path_factory.mktemp("clips")
    write_data(folder, [(16, 16)] * 3, frames=4)
    return folder


@pytest.fixture(scope="session")
def flags(tiny_checkpoint: Path, clips: Path, compilation_cache: Path) -> dict[str, str]:
    """Flags of a short run."""
    return {
        "--pretrained_model_name_or_path": str(tiny_checkpoint),
        "--data_dir": str(clips),
        "--compilation_cache": str(compilation_cache),
        "--resolution": "16",
        "--video_length": "4",
        "--train_batch_size": "2",
        "--learning_rate": "1e-3",
        "--max_train_steps": "4",
        "--save_starting_step": "1",
        "--save_n_steps": "1",
        "--report_to": "none",
        "--test_prompts": "",
    }


def mixed_data(folder: Path) -> tuple[Any, ...]:
    """Flags of a run over two data sets, which are written, with all that is drawn by chance."""
    write_data(folder / "a", [(24, 16)] * 3, frames=8)
    write_data(folder / "b", [(16, 16)] * 2, frames=8)
    return (
        *("--data_dir", f"{folder}/a?weight=1", "--data_dir", f"{folder}/b?weight=3"),
        *("--frame_stride", 2, "--mirror", "--random_crop", "--aspect_ratio", "1.00"),
        *("--shuffle_tags", "--tag_dropout", 0.3, "--trigger_words", "zzz"),
    )


def arguments(flags: dict[str, str], given: tuple[Any, ...]) -> list[str]:
    listed = [str(each) for each in given]
    for name, value in flags.items():
        if name not in listed:
            listed += [name, value]
    return listed


@pytest.fixture
def train(
    flags: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Run]:
    """Runs the command in this process."""

    def run(*given: Any) -> Run:
        listed = arguments(flags, given)
        if "--output_dir" not in listed:
            listed += ["--output_dir", str(tmp_path / "out")]
        output = Path(listed[listed.index("--output_dir") + 1])
        capfd.readouterr()
        status = main(listed)
        return Run(status, capfd.readouterr().err, output)

    return run


@pytest.fixture(scope="session")
def unbroken(flags: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of eight steps that nothing disturbed; tests only look at it."""
    output = tmp_path_factory.mktemp("runs") / "unbroken"
    given = ("--max_train_steps", 8, "--output_dir", output, "--report_to", "none")
    return Run(main(arguments(flags, given)), "", output)


def start(flags: dict[str, str], *given: Any) -> subprocess.Popen[str]:
    """Runs the command in a process of its own."""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen(
        [sys.executable, "train.py", *arguments(flags, given)],
        cwd=ROOT,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def signal_after(
    process: subprocess.Popen[str], metrics: Path, lines: int, number: signal.Signals
) -> str:
    """Signals a run once its metrics have so many lines, and gives its error stream."""
    deadline = time.monotonic() + 900
    while not metrics.exists() or len(metrics.read_text().splitlines()) < lines:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(number)
    return process.communicate(timeout=300)[1]
