"""Running the commands inside the test process."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.cli.convert import command as convert_command
from hotshot_jax.cli.infer.command import main
from tests.cli.processes import infer_command


@dataclasses.dataclass(frozen=True)
class Run:
    """What a run of the command left behind.

    Attributes:
        status: exit status.
        stdout: text of standard output.
        stderr: text of standard error.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        """The JSON line of `--json`."""
        return json.loads(self.stdout.splitlines()[-1])


Infer = Callable[..., Run]


@pytest.fixture
def infer(
    tiny_checkpoint: Path,
    compilation_cache: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> Infer:
    """Runs the command on the tiny checkpoint, two steps at 16 x 16, unless flags say otherwise."""

    def run(*flags: str | Path) -> Run:
        defaults = {
            "--pretrained_path": str(tiny_checkpoint),
            "--output": str(tmp_path / "out.gif"),
            "--compilation_cache": str(compilation_cache),
            "--steps": "2",
            "--width": "16",
            "--height": "16",
        }
        given = [str(flag) for flag in flags]
        if "--aspect_ratio" in given or "--config" in given:
            for name in ("--width", "--height", "--steps"):
                defaults.pop(name)
        for name, value in defaults.items():
            if name not in given:
                given += [name, value]
        return _captured(capfd, main, given)

    return run


@pytest.fixture(scope="session")
def plain(
    tiny_checkpoint: Path, compilation_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder of PNGs that `infer` writes without a flag more; tests only look at it."""
    folder = tmp_path_factory.mktemp("runs") / "new" / "plain"
    command = infer_command(tiny_checkpoint, compilation_cache)
    assert main([*command[2:], "--output", f"{folder}/"]) == 0
    return folder


@pytest.fixture
def convert(capfd: pytest.CaptureFixture[str]) -> Infer:
    """Runs `python -m convert`."""
    return lambda *arguments: _captured(capfd, convert_command.main, [str(a) for a in arguments])


def _captured(
    capfd: pytest.CaptureFixture[str], command: Callable[[list[str]], int], arguments: list[str]
) -> Run:
    capfd.readouterr()
    try:
        status = command(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    captured = capfd.readouterr()
    return Run(status, captured.out, captured.err)
