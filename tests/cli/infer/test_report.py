"""`--report`: versions, devices and settings, and nothing of the person who asks."""

import getpass
import os
import platform
from pathlib import Path

import jax
import pytest

from hotshot_jax.cli.infer.command import main
from hotshot_jax.version import __version__


def test_it_tells_what_an_issue_needs(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XLA_FLAGS", f"{os.environ.get('XLA_FLAGS', '')} --xla_dump_to=/home/me/x")
    monkeypatch.setenv("LIBTPU_INIT_ARGS", "--dump=~/my/secrets")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "my-host-1,my-host-2")
    monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", "my-host-1:1234")
    line = "--report --steps 20 --scheduler euler --noise jax --loop --lora /home/me/fox:0.5"
    assert main([*line.split(), "--prompt", "my secret cat", "--config", "/home/me/a.yaml"]) == 0
    out, err = capsys.readouterr()
    for told in (
        f"hotshot-jax {__version__}",
        f"Python {platform.python_version()}",
        f"jax {jax.__version__}",
        "(cpu)",
        "--steps 20",
        "--scheduler euler",
        "--noise jax",
        "--loop True",
        "--lora (hidden)",
        "--prompt (hidden)",
        "--config (hidden)",
        "--xla_dump_to=(hidden)",
        "LIBTPU_INIT_ARGS=--dump=(hidden)",
    ):
        assert told in out, out
    assert err == ""
    for hidden in (
        "/home",
        "secret cat",
        "my/secrets",
        "my-host",
        str(Path.home()),
        platform.node(),
    ):
        assert hidden not in out or len(hidden) < 4
    if len(getpass.getuser()) > 4:
        assert getpass.getuser() not in out


def test_without_a_device_it_tells_what_the_driver_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def devices() -> None:
        raise RuntimeError("Unable to initialize backend cuda: /usr/lib/libcuda.so is missing\nx")

    monkeypatch.setattr(jax, "devices", devices)
    assert main(["--report"]) == 0
    assert "no devices: Unable to initialize backend cuda: (hidden) is missing\n" in (
        capsys.readouterr().out
    )


def test_wrong_flags_are_wrong_here_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--report", "--stepz", "3"]) == 2
    assert "did you mean --steps" in capsys.readouterr().err
