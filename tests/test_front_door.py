"""What `import hotshot_jax` gives."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import hotshot_jax

SOURCE = Path(hotshot_jax.__file__)


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


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'HotshotXL'"):
        hotshot_jax.HotshotXL  # noqa: B018


def test_importing_the_package_imports_neither_jax_nor_numpy() -> None:
    code = "import sys, hotshot_jax; print(sorted({'jax', 'numpy', 'flax'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
