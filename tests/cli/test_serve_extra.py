"""The server without the packages of its extra."""

import subprocess
import sys

_STARTED = """
import sys
sys.modules[{package!r}] = None
from hotshot_jax.cli.serve.command import main
sys.exit(main([]))
"""


def test_a_missing_extra_is_named_without_a_traceback() -> None:
    for package in ("pydantic", "uvicorn"):
        command = [sys.executable, "-c", _STARTED.format(package=package)]
        run = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert run.returncode == 1
        assert f"Serving needs {package}, which is not installed" in run.stderr
        assert "hotshot-jax[serve]" in run.stderr
        assert "Traceback" not in run.stderr
