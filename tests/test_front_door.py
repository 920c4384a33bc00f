"""What `import hotshot_jax` gives, and what the commands do before they start their work."""

import ast
import contextlib
import importlib
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import hotshot_jax

SOURCE = Path(hotshot_jax.__file__)
ROOT = SOURCE.parents[1]
SCRIPTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]


@pytest.mark.parametrize("name", hotshot_jax.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(hotshot_jax, name) is not None
    assert name in dir(hotshot_jax)


def test_type_checkers_see_the_same_names() -> None:
    guarded = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    names = {
        (node.module, alias.asname)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert names == {
        (f"hotshot_jax.{module}", name) for name, module in hotshot_jax._MODULE_OF.items()
    }
    assert SOURCE.with_name("py.typed").is_file()


def test_the_program_that_is_type_checked_uses_every_name() -> None:
    program = (ROOT / "tests" / "typing" / "user_program.py").read_text()
    assert [name for name in hotshot_jax.__all__ if not re.search(rf"\b{name}\b", program)] == []


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HotshotXL'"):
        hotshot_jax.HotshotXL  # noqa: B018


# All in one process, since each costs its start; the first command that imports something is named.
_COMMANDS = """
import contextlib, io, runpy, sys
import hotshot_jax

heavy = "jax jaxlib flax numpy PIL transformers huggingface_hub orbax yaml tqdm".split()

def told(name, *flags, status=0):
    sys.argv = [name, *flags]
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            if name.endswith(".py"):
                runpy.run_path(name, run_name="__main__")
            else:
                runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            assert (end.code or 0) == status, (name, flags, err.getvalue())
    imported = sorted(set(heavy) & set(sys.modules))
    assert not imported, (name, flags, imported)
    return out.getvalue() + err.getvalue()

for name in sys.argv[1:]:
    called = name if name.endswith(".py") else f"python -m {name}"
    assert told(name, "--help").startswith(f"usage: {called}"), name
    assert told(name, "--version") == f"{called} {hotshot_jax.__version__}\\n", name
    assert "error:" in told(name, "--prompt_of_nobody", status=2)
"""
COMMANDS = (
    "infer.py",
    "train.py",
    "convert",
    "hotshot_jax",
    "hotshot_jax.data.build",
    "hotshot_jax.data.inspect",
    "hotshot_jax.measure",
    "benchmarks.toy.from_scratch",
)


def test_help_versions_and_wrong_flags_import_nothing_heavy() -> None:
    command = [sys.executable, "-c", _COMMANDS, *COMMANDS]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.parametrize("name", SCRIPTS)
def test_installed_commands_call_themselves_by_their_names(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module, _, function = SCRIPTS[name].partition(":")
    main = getattr(importlib.import_module(module), function)
    for flags in (["--version"], ["build", "--version"])[: 2 if name.endswith("data") else 1]:
        monkeypatch.setattr(sys, "argv", [f"/usr/bin/{name}", *flags])
        with contextlib.suppress(SystemExit):
            assert main() == 0
        said = " ".join((name, *flags[:-1], hotshot_jax.__version__))
        assert capsys.readouterr().out == f"{said}\n"
