"""What is said when a process that runs together with others ends without a word."""

import subprocess
import sys

import pytest

from hotshot_jax.cli import hosts
from tests.cli.processes import ROOT

ABORTS = """
import os
from hotshot_jax.cli.hosts import _Watcher
_Watcher("train.py")
os.abort()  # As JAX's runtime does when another process is lost.
"""


def test_an_abort_is_explained() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", ABORTS], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode != 0
    (error, advice) = ended.stderr.strip().splitlines()[-2:]
    assert error.startswith("train.py: error: The run ended because another of its processes")
    assert "Start the command again on all hosts" in advice


def test_nothing_is_said_about_an_orderly_end(capfd: pytest.CaptureFixture[str]) -> None:
    hosts._Watcher("train.py").dismiss()
    assert capfd.readouterr().err == ""


def test_a_lost_process_is_found_behind_whatever_it_has_caused() -> None:
    lost = hosts.jax.errors.JaxRuntimeError("UNKNOWN: Gloo AllGather failed: Connection closed")
    try:
        try:
            raise lost
        except RuntimeError as error:
            raise OSError("the checkpoint could not be written") from error
    except OSError as error:
        assert hosts._failed_communication(error) is lost
    assert hosts._failed_communication(OSError("the disk is full")) is None
    memory = hosts.jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")
    assert hosts._failed_communication(memory) is None
