"""Commands where a package is not installed: the README's first line was left out, or an extra."""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from hotshot_jax.cli.missing_package import PACKAGES, missing_package

ROOT = Path(__file__).parents[2]
_STARTED = """
import sys
sys.modules[{package!r}] = None
from hotshot_jax.cli.{command}.command import main
sys.exit(main({arguments}))
"""
_TRAIN = ["--data_dir", "shapes:train?length=1", "--output_dir", "run"]


@pytest.mark.parametrize(
    ("command", "package", "arguments", "install"),
    [
        ("infer", "jax", ["--prompt", "a red circle"], "install -c constraints.txt ."),
        ("train", "optax", _TRAIN, 'install -c constraints.txt ".[train]"'),
        ("serve", "pydantic", [], 'install -c constraints.txt ".[serve]"'),
        ("serve", "uvicorn", [], 'install -c constraints.txt ".[serve]"'),
    ],
)
def test_it_is_named_without_a_traceback(
    command: str, package: str, arguments: list[str], install: str, tmp_path: Path
) -> None:
    program = _STARTED.format(package=package, command=command, arguments=arguments)
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300
    )
    assert run.returncode == 1
    (said,) = run.stderr.splitlines()
    assert f"error: {package} is not installed for {sys.executable}: pip install" in said
    assert said.endswith(install)


def test_what_nobody_installs_is_a_bug() -> None:
    for name in ("hotshot_jax.nothing", "torch_of_nobody", None):
        assert missing_package(ModuleNotFoundError("no module", name=name)) is None


@pytest.mark.parametrize("extra", ["", "train", "serve"])
def test_every_requirement_is_in_the_table(extra: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["optional-dependencies"][extra] if extra else project["dependencies"]
    distributions = {
        _plain(each)
        for name, names in importlib.metadata.packages_distributions().items()
        if PACKAGES.get(name) == extra
        for each in names
    }
    assert {_plain(re.split(r"[>=\[]", each)[0]) for each in wanted} <= distributions


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
