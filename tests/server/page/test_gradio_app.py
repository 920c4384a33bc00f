"""The page alone, started as people and Spaces start it."""

import json
import os
import runpy
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


def asked(url: str) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=120) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_it_starts_alone_and_serves_the_page(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "SPACE_ID"}
    command = [sys.executable, "apps/gradio_app.py", "--port", "0", "--jobs_dir", str(tmp_path)]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            # Whoever reads the address can ask at once.
            here = process.stdout.readline().strip()
            assert here.startswith("http://127.0.0.1:")
            status, page = asked(here)
            assert status == 200 and b"hotshot-jax" in page
            status, config = asked(f"{here}/config")
            assert status == 200 and json.loads(config)["title"] == "hotshot-jax"
            # The API is another program's, and the list of all clips nobody's.
            assert asked(f"{here}/v1/videos")[0] == 404
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 128 + signal.SIGTERM
        finally:
            process.kill()


class PreparedError(Exception):
    pass


@pytest.mark.parametrize(("space", "host"), [(None, "127.0.0.1"), ("me/gifs", "0.0.0.0")])
def test_it_is_reached_from_elsewhere_in_a_space_alone(
    monkeypatch: pytest.MonkeyPatch, space: str | None, host: str
) -> None:
    def stop(settings: Any, given: Any) -> None:
        assert (settings.host, settings.port, settings.api_key) == (host, 7860, None)
        raise PreparedError

    monkeypatch.delenv("SPACE_ID", raising=False)
    if space is not None:
        monkeypatch.setenv("SPACE_ID", space)
    monkeypatch.setattr("hotshot_jax.cli.serve.serve.prepared", stop)
    monkeypatch.setattr(sys, "argv", ["gradio_app.py"])
    with pytest.raises(PreparedError):
        runpy.run_path(str(ROOT / "apps" / "gradio_app.py"), run_name="__main__")
