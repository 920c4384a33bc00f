"""The library speaks in its own words: flags are the command line's, which spells settings so."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from hotshot_jax.cli.run import in_flags

PACKAGE = Path(__file__).parents[1] / "hotshot_jax"
# It knows flags.
COMMANDS = "cli"
FLAG = re.compile(r"(?<![\w-])--([a-z]|$)")


def literals(tree: ast.AST) -> Iterator[ast.Constant]:
    """Strings that are no docstrings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            node.value.value = None
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node


def test_no_message_of_the_library_names_a_flag() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{literal.lineno}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.relative_to(PACKAGE).parts[0] != COMMANDS
        for literal in literals(ast.parse(path.read_text()))
        if FLAG.search(str(literal.value))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("`width` is 7; expected 8.", "--width is 7; expected 8."),
        ("give them with `loras` or `base`", "give them with --lora or --base"),
        ("`original_size` is -1", "--og_width or --og_height is -1"),
        ("`pip install x` brings it", "`pip install x` brings it"),
    ],
)
def test_the_command_line_spells_settings_as_flags(message: str, shown: str) -> None:
    assert in_flags(message) == shown
