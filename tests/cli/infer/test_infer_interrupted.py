"""`infer.py` stopped by Ctrl-C or SIGTERM: a status that says so, and nothing half-written."""

import signal
import time
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest

from hotshot_jax.cli.run import run
from hotshot_jax.errors import HotshotError
from hotshot_jax.media import write
from tests.cli.checkpoints import everything
from tests.cli.conftest import Infer
from tests.cli.processes import infer_command, signalled

SIGNALS = (signal.SIGINT, signal.SIGTERM)


def assert_stopped(status: int, stderr: str, number: signal.Signals) -> None:
    assert status == 128 + number, stderr
    assert f"stopped by {number.name}; nothing unfinished was left behind" in stderr
    assert "Traceback" not in stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_while_sampling(
    infer: Infer,
    tmp_path: Path,
    tiny_checkpoint: Path,
    compilation_cache: Path,
    number: signal.Signals,
) -> None:
    assert infer("--output", tmp_path / "old.gif").status == 0
    before = everything(tmp_path)
    flags = ("--steps", "1000", "--output", str(tmp_path / "old.gif"), "--overwrite")
    command = infer_command(tiny_checkpoint, compilation_cache, *flags)
    status, stderr = signalled(command, number, when="denoising")
    assert_stopped(status, stderr, number)
    assert everything(tmp_path) == before


@pytest.mark.parametrize("number", SIGNALS)
@pytest.mark.parametrize("name", ["old.gif", "old.mp4", "old/"])
@pytest.mark.parametrize("there_before", [False, True])
def test_while_writing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: signal.Signals,
    name: str,
    there_before: bool,
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
    folder = tmp_path / "results"
    if there_before:
        write.write_video(f"{folder}/{name}", frames, 1000, {})
    before = everything(tmp_path)

    def half_written(file: Path, *_: Any, **__: Any) -> None:
        with file.open("wb") as stream:
            stream.write(b"half")
        signal.raise_signal(number)
        raise AssertionError("the signal did not stop the run")

    def half_streamed(file: IO[bytes], *_: Any, **__: Any) -> None:
        file.write(b"half")
        signal.raise_signal(number)
        raise AssertionError("the signal did not stop the run")

    monkeypatch.setattr(Path, "write_bytes", half_written)
    monkeypatch.setattr(write, "_write", half_streamed)
    monkeypatch.setattr(write, "write_mp4", half_written)
    status = run(
        "infer.py", lambda: write.write_video(f"{folder}/{name}", frames, 1000, {}, overwrite=True)
    )
    assert_stopped(status, capfd.readouterr().err, number)
    monkeypatch.undo()
    assert everything(tmp_path) == before


def test_the_command_while_writing(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.gif"
    write.write_video(str(old), np.zeros((2, 16, 16, 3), np.uint8), 1000, {"made": "before"})
    before = everything(tmp_path)

    def slow(*_: Any, **__: Any) -> bytes:
        signal.raise_signal(signal.SIGTERM)
        time.sleep(60)
        return b"after"

    monkeypatch.setattr(write, "write_gif", slow)
    stopped = infer("--output", old, "--overwrite")
    assert_stopped(stopped.status, stopped.stderr, signal.SIGTERM)
    assert everything(tmp_path) == before


def test_a_result_that_was_complete_before_stays_and_is_named(
    infer: Infer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = write.write_gif
    calls = []

    def second_stops(*arguments: Any, **options: Any) -> bytes:
        calls.append(arguments)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return encode(*arguments, **options)

    monkeypatch.setattr(write, "write_gif", second_stops)
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("a fox\na whale\n")
    stopped = infer("--prompts_file", prompts, "--output", tmp_path / "clips" / "a.gif")
    assert_stopped(stopped.status, stopped.stderr, signal.SIGINT)
    assert stopped.stdout.split() == [str(tmp_path / "clips" / "a-001.gif")]
    assert list(everything(tmp_path / "clips")) == ["a-001.gif"]


def test_a_second_signal_does_not_cut_the_cleaning_up_short(
    capfd: pytest.CaptureFixture[str],
) -> None:
    cleaned = []

    def body() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGTERM)
            cleaned.append(True)

    handlers = [signal.getsignal(number) for number in SIGNALS]
    assert run("infer.py", body) == 130
    assert cleaned == [True]
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    assert "stopped by SIGINT" in capfd.readouterr().err


def test_failures_have_their_statuses(capfd: pytest.CaptureFixture[str]) -> None:
    def fail(error: BaseException) -> Any:
        def body() -> None:
            raise error

        return body

    assert run("infer.py", fail(HotshotError("x.gif: broken."))) == 1
    assert run("infer.py", fail(PermissionError(13, "Permission denied", "x.txt"))) == 1
    lines = capfd.readouterr().err.splitlines()
    assert lines == [
        "infer.py: error: x.gif: broken.",
        "infer.py: error: x.txt: Permission denied.",
    ]
    with pytest.raises(ZeroDivisionError):
        run("infer.py", fail(ZeroDivisionError()))
