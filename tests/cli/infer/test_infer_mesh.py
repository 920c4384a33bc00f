"""`--mesh` and its companions: what is refused."""

import re

import jax
import pytest

from tests.cli.conftest import Infer


@pytest.mark.parametrize(
    ("devices", "flags", "message"),
    [
        (1, ("--mesh", "frames=4"), "multiply to 4, but there is 1 device"),
        (8, ("--mesh", "data=2,frames=2"), "multiply to 4, but there are 8 devices"),
        (8, ("--mesh", "frames=8", "--video_length", "12"), "12 frames do not divide"),
        (4, ("--mesh", "frames=-1", "--video_length", "6"), "6 frames do not divide"),
        (8, ("--mesh", "frame=8"), "unknown axis 'frame'.*did you mean frames"),
        (8, ("--mesh", "8"), "expected AXIS=SIZE"),
    ],
)
def test_meshes_that_cannot_be_are_refused_before_anything_is_loaded(
    infer: Infer,
    monkeypatch: pytest.MonkeyPatch,
    devices: int,
    flags: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    run = infer(*flags, "--pretrained_path", "is/never/opened")
    assert run.status == 2
    assert run.stderr.count("\n") == 1
    assert re.search(message, run.stderr)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--coordinator_address", "host:1234"), "need --process_count and --process_index too"),
        (("--process_count", "2", "--process_index", "0"), "need --coordinator_address too"),
        (
            ("--coordinator_address", "host", "--process_count", "2", "--process_index", "0"),
            "expected HOST:PORT",
        ),
    ],
)
def test_half_of_the_flags_for_several_processes_are_refused(
    infer: Infer, flags: tuple[str, ...], message: str
) -> None:
    run = infer(*flags)
    assert run.status == 2
    assert message in run.stderr
