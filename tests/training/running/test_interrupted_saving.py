"""Runs that end while something is being saved: killed, interrupted twice, or on a full disk."""

import contextlib
import errno
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from hotshot_jax.errors import HotshotError
from hotshot_jax.training.running import checkpoint, interruption
from hotshot_jax.training.running.checkpoint import Checkpoints, Saved
from hotshot_jax.training.running.interruption import Interrupted, StopRequest
from hotshot_jax.training.running.step import TrainState
from tests.training.conftest import ROOT, Run, start

Train = Callable[..., Run]


def complete(folder: Path) -> list[int]:
    """Steps of the complete checkpoints in a folder."""
    return [int(path.name) for path in folder.iterdir() if path.name.isdigit()]


def half_written(folder: Path) -> list[Path]:
    return list(folder.glob("*orbax-checkpoint-tmp*"))


def stop_while_writing(process: subprocess.Popen[str], folder: Path) -> None:
    """Halts a run at a moment at which a checkpoint is half written and another one complete."""
    deadline = time.monotonic() + 900
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()[1]
        if not (folder.is_dir() and half_written(folder) and complete(folder)):
            time.sleep(0.001)
            continue
        process.send_signal(signal.SIGSTOP)
        time.sleep(0.1)
        # It may have been completed before the signal came.
        if half_written(folder):
            return
        process.send_signal(signal.SIGCONT)
    raise AssertionError("no checkpoint was ever seen half written")


@pytest.mark.slow
def test_killed_while_a_checkpoint_is_being_written(
    flags: dict[str, str], unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "killed"
    folder = output / "checkpoints"
    process = start(flags, "--output_dir", output, "--max_train_steps", 100_000)
    try:
        stop_while_writing(process, folder)
    finally:
        process.kill()
        process.communicate()
    last = max(complete(folder))
    assert half_written(folder)
    steps = max(8, last + 1)
    resumed = train("--output_dir", output, "--max_train_steps", steps)
    assert resumed.status == 0, resumed.stderr
    assert f"going on from step {last} " in resumed.stderr
    assert not half_written(folder)
    assert [step for step, *_ in resumed.losses] == list(range(1, steps + 1))
    assert resumed.losses[:8] == unbroken.losses


def test_what_a_killed_run_was_writing_is_removed(tmp_path: Path) -> None:
    for name in ("3", "4.orbax-checkpoint-tmp", "5.orbax-checkpoint-tmp-1795441390"):
        (tmp_path / name / "state").mkdir(parents=True)
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        assert not half_written(tmp_path)
        assert checkpoints.latest is not None and checkpoints.latest.step == 3


def test_what_is_saved_follows_from_the_run_and_not_from_the_listing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Hosts may see another listing each, and have to take part in saving all or none.
    state = TrainState(jnp.int32(1), jax.random.key(0), {"w": jnp.ones(2)}, (), None, None)
    with contextlib.closing(Checkpoints(tmp_path, keep=2)) as checkpoints:
        monkeypatch.setattr(checkpoint, "_complete", lambda folder: [Saved(folder, 9)])
        checkpoints.save(state, 1, {})
        checkpoints.wait()
        assert (tmp_path / "1").is_dir()
        monkeypatch.setattr(checkpoint, "_complete", lambda folder: [])
        checkpoints.save(state, 1, {})


def test_where_folders_cannot_be_renamed_it_is_told_before_the_first_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, destination: Path) -> None:
        # As Cloud Storage FUSE does over a bucket without folders.
        assert Path(source).is_dir() and list(Path(source).iterdir())
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(HotshotError, match=r"renamed there \(Too many open files") as caught:
        Checkpoints(tmp_path, keep=2)
    assert "hierarchical namespace" in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_second_ctrl_c_interrupts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(interruption, "time", SimpleNamespace(monotonic=lambda: now))
    stop = StopRequest()
    before = signal.getsignal(signal.SIGINT)
    with stop.listening():
        assert not stop.asked(1)
        signal.raise_signal(signal.SIGINT)
        assert stop.asked(1) and stop.number == signal.SIGINT
        # Sent to the process and to its group: one wish.
        now = 0.1
        signal.raise_signal(signal.SIGINT)
        now = 1.0
        with pytest.raises(Interrupted) as caught:
            signal.raise_signal(signal.SIGINT)
        assert caught.value.number == signal.SIGINT
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_two_ctrl_cs_end_a_run_in_the_middle_of_an_update(
    flags: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "stopped"
    # An update that takes longer than anybody waits.
    given = ("--gradient_accumulation_steps", 1_000_000, "--max_train_steps", 2)
    process = start(flags, "--output_dir", output, *given)
    assert process.stderr is not None
    told = ""
    while "training step" not in told or not told.rstrip().endswith("s") or "in " not in told:
        line = process.stderr.readline()
        assert line, told
        told = told + line if "training step" in told + line else ""
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(2.0)
    assert process.poll() is None
    # On a busy machine the first may have been heard late, and what follows soon is taken for it.
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(2.0)
    told = process.communicate(timeout=10)[1]
    assert process.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT; nothing unfinished was left behind" in told
    assert "Traceback" not in told
    assert list((output / "checkpoints").iterdir()) == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "the disk is full"),
        (ValueError("RESOURCE_EXHAUSTED: No space left on device"), "the disk is full"),
        (PermissionError(errno.EACCES, os.strerror(errno.EACCES)), "Permission denied"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_a_checkpoint_that_cannot_be_written_names_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str, at_once: bool
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        if at_once:
            raise error
        return SimpleNamespace(result=lambda: fail_later())

    def fail_later() -> None:
        raise error

    number = jnp.zeros((), jnp.int32)
    state = TrainState(number, number, {"a": jnp.ones(2)}, (), None, None)
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    checkpoints.save(state, 1, {})
    checkpoints.wait()
    monkeypatch.setattr(checkpoints._checkpointer, "save_async", fail)
    with pytest.raises(HotshotError) as caught:
        checkpoints.save(state, 2, {})
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.close()
    message = str(caught.value)
    assert "the checkpoint of step 2 could not be written" in message and reason in message
    assert f"The one before is {tmp_path / 'checkpoints' / '1'}" in message
    assert len(message.splitlines()) == 2


def test_closing_tells_what_orbax_tells_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    close = checkpoints._checkpointer.close

    def fail() -> None:
        close()
        raise ValueError("RESOURCE_EXHAUSTED: Failed to write: No space left on device")

    monkeypatch.setattr(checkpoints._checkpointer, "close", fail)
    with pytest.raises(HotshotError, match="the disk is full"):
        checkpoints.close()


_SAVING_ON_A_SMALL_DISK = """
import subprocess, sys
from pathlib import Path
import jax.numpy as jnp
import numpy as np
from hotshot_jax.errors import HotshotError
from hotshot_jax.training.running.checkpoint import Checkpoints
from hotshot_jax.training.running.step import TrainState

disk = Path(sys.argv[1])
# A mebibyte that does not compress.
numbers = np.random.default_rng(0).standard_normal(2**18, np.float32)
step = jnp.zeros((), jnp.int32)
state = TrainState(step, step, {"a": jnp.asarray(numbers)}, (), None, None)
checkpoints = Checkpoints(disk / "checkpoints", keep=2)
try:
    for step in range(1, 9):
        checkpoints.save(state, step, {})
        checkpoints.wait()
except HotshotError as error:
    print(error)
try:
    checkpoints.close()
except HotshotError:
    pass
subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
checkpoints = Checkpoints(disk / "checkpoints", keep=2)
last = checkpoints.latest.step
checkpoints.save(state, last + 1, {})
checkpoints.close()
print(last, sorted(path.name for path in (disk / "checkpoints").iterdir()))
"""


@pytest.mark.slow
def test_on_a_full_disk_the_one_before_stays_and_with_room_it_goes_on(tmp_path: Path) -> None:
    def on_a_disk_of(size: str, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        script = f"mount -t tmpfs -o size={size} tmpfs {tmp_path} && exec {shlex.join(command)}"
        return subprocess.run(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", script],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )

    try:
        if on_a_disk_of("1m", ["true"]).returncode:
            pytest.skip("this user may not mount a file system")
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    # Two checkpoints fit, the third does not.
    result = on_a_disk_of("2600k", [sys.executable, "-c", _SAVING_ON_A_SMALL_DISK, str(tmp_path)])
    assert result.returncode == 0, result.stderr
    told, where, kept = result.stdout.splitlines()
    assert "the checkpoint of step 3 could not be written: the disk is full" in told
    assert f"The one before is {tmp_path}/checkpoints/2" in where
    assert kept == "2 ['2', '3']"
