"""What is said when a process that runs together with others ends without a word."""

import signal
import socket
import subprocess
import sys
import time
from typing import ClassVar

import pytest

from hotshot_jax.cli import hosts
from hotshot_jax.errors import HotshotError
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


@pytest.mark.parametrize(
    "text",
    [
        "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1 bytes",
        "INTERNAL: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        "INTERNAL: cuDNN: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_a_full_device_is_told_in_words(text: str) -> None:
    with (
        pytest.raises(HotshotError, match="needs 5 GiB") as caught,
        hosts.explained_memory_errors(lambda: "it needs 5 GiB"),
    ):
        try:
            raise hosts.jax.errors.JaxRuntimeError(text)
        except RuntimeError as error:
            raise ValueError("an array cannot be read") from error
    assert "--low_vram_mode" in str(caught.value) and "XLA_CLIENT" not in str(caught.value)


def test_of_a_gpu_there_is_more_than_jax_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hosts.jax, "default_backend", lambda: "gpu")
    with (
        pytest.raises(HotshotError, match=r"XLA_CLIENT_MEM_FRACTION=0\.95"),
        hosts.explained_memory_errors(lambda: ""),
    ):
        raise hosts.jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED")


@pytest.mark.parametrize(
    ("name", "set_before", "expected"),
    [
        ("auto", None, None),
        ("auto", "cuda", "cuda,cpu"),
        ("auto", "tpu,cpu", "tpu,cpu"),
        ("cpu", "tpu", "cpu"),
        ("tpu", None, "tpu,cpu"),
        ("gpu", "tpu", None),
    ],
)
def test_what_waits_in_host_memory_finds_it(
    monkeypatch: pytest.MonkeyPatch, name: str, set_before: str | None, expected: str | None
) -> None:
    class Config:
        values: ClassVar = {"jax_platforms": set_before}

        def update(self, name: str, value: str | None) -> None:
            self.values[name] = value

    monkeypatch.setattr(hosts.jax, "config", Config())
    hosts.choose_platforms(name)
    assert Config.values["jax_platforms"] == expected


def test_platforms_are_chosen_before_settings_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To compare is to start devices, and --device says which."""
    order = []
    monkeypatch.setattr(hosts, "choose_platforms", order.append)
    monkeypatch.setattr(hosts, "join", lambda config: True)
    monkeypatch.setattr(hosts, "compare", lambda settings: order.append("compared"))
    monkeypatch.setattr(hosts.jax.distributed, "shutdown", lambda: None)
    settings = {"coordinator_address": "a:1", "process_count": 2, "process_index": 0}
    with hosts.on_hosts("infer.py", {**settings, "device": "cpu"}):
        order.append("body")
    assert order == ["cpu", "compared", "body"]


def test_handlers_that_a_device_has_replaced_are_put_back() -> None:
    """As libtpu may, which Python is not told of."""
    ended = subprocess.run(
        [sys.executable, "-c", DEVICE_STARTS], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 128 + signal.SIGTERM, ended.stderr
    assert "stopped by SIGTERM" in ended.stderr


DEVICE_STARTS = """
import ctypes, os, signal, sys, time
import jax
from hotshot_jax.cli import hosts
from hotshot_jax.cli.run import run

def devices():
    ctypes.CDLL(None).signal(signal.SIGTERM, None)
    return started()

started, jax.devices = jax.devices, devices
def body():
    hosts.use_device("cpu")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
sys.exit(run("infer.py", body))
"""


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
