"""What is said when a process that runs together with others ends without a word."""

import signal
import socket
import subprocess
import sys
import time

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


WAITS = """
import sys
from hotshot_jax.cli.hosts import on_hosts
from hotshot_jax.cli.run import run
settings = {
    "coordinator_address": sys.argv[1], "process_count": 2, "process_index": 1, "device": "cpu"
}
def body():
    with on_hosts("train.py", settings):
        pass
sys.exit(run("train.py", body))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_obeyed_while_others_are_waited_for(number: signal.Signals) -> None:
    with socket.socket() as coordinator:
        coordinator.bind(("localhost", 0))
        coordinator.listen()
        address = f"localhost:{coordinator.getsockname()[1]}"
        waiting = subprocess.Popen(
            [sys.executable, "-c", WAITS, address], cwd=ROOT, stderr=subprocess.PIPE, text=True
        )
        coordinator.accept()[0].close()
        sent = time.monotonic()
        waiting.send_signal(number)
        told = waiting.communicate(timeout=60)[1]
    assert time.monotonic() - sent < 10
    assert waiting.returncode == 128 + number
    assert f"stopped by {number.name}" in told and "Traceback" not in told


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
