"""Imports go one way: the table in `CONTRIBUTING.md` is the law, and this holds the code to it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "hotshot_jax"
ROWS = re.findall(
    r"^\| (`hotshot_jax/.+?) \|.*\| (.*?) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M
)
COMMANDS = "cli"


def law() -> dict[str, set[str]]:
    """The rooms from the top of the table, and which others each may import."""
    allowed: dict[str, set[str]] = {}
    for names, may_import in ROWS:
        above = set(allowed)
        listed = above if may_import == "all above" else set(re.findall(r"`(\w+)`", may_import))
        for room in re.findall(r"`hotshot_jax/(\w+)/`", names):
            assert listed <= above, f"{room} may only import what stands above it"
            allowed[room] = listed
    return allowed


def imports(tree: ast.AST) -> Iterator[str]:
    """Modules that a file imports, but for what it does when it is run as a command."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "__main__" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        yield from imports(node)


def arrows() -> Iterator[tuple[str, str, str]]:
    """File, its room, and the room of what it imports; modules outside the rooms serve all.

    What is run as a command belongs to the command line, wherever it lies.
    """
    for path in sorted(PACKAGE.glob("*/**/*.py")):
        if path.name == "__main__.py":
            continue
        room = path.relative_to(PACKAGE).parts[0]
        for module in imports(ast.parse(path.read_text())):
            parts = module.split(".")
            if parts[0] == "hotshot_jax" and len(parts) > 1 and (PACKAGE / parts[1]).is_dir():
                yield str(path.relative_to(ROOT)), room, parts[1]


def test_every_room_has_its_row() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(law()) == rooms


def test_no_arrow_goes_another_way() -> None:
    allowed = law()
    wrong = [
        f"{file} imports {there}"
        for file, here, there in arrows()
        if here != there and there not in allowed[here]
    ]
    assert not wrong


def test_the_command_line_is_imported_by_nothing_else() -> None:
    assert not [file for file, here, there in arrows() if there == COMMANDS != here]


def test_making_a_gif_needs_no_server() -> None:
    infer = "hotshot_jax/cli/infer/"
    assert not [file for file, _, there in arrows() if there == "server" and file.startswith(infer)]


def test_the_page_is_known_to_commands_alone() -> None:
    page = "hotshot_jax.server.page"
    known = {
        path.relative_to(PACKAGE).parts[:2]
        for path in PACKAGE.rglob("*.py")
        if any(name.startswith(page) for name in imports(ast.parse(path.read_text())))
    }
    assert known - {("server", "page")} == {("cli", "serve")}
    for path in (PACKAGE / "server").rglob("*.py"):
        gradio = "gradio" in imports(ast.parse(path.read_text()))
        assert not gradio or path.parent.name == "page", path


def test_folders_and_files_stay_small() -> None:
    folders = [
        path for path in (ROOT / "benchmarks", PACKAGE) for path in (path, *path.rglob("*/"))
    ]
    crowded = {str(path): n for path in folders if (n := len(list(path.glob("*.py")))) > 20}
    long = {
        str(path): n
        for folder in (PACKAGE, ROOT / "benchmarks", ROOT / "convert")
        for path in folder.rglob("*.py")
        if (n := len(path.read_text().splitlines())) > 400
    }
    assert not crowded
    assert not long


def test_no_two_tests_have_one_name() -> None:
    # pytest refuses the second module of a name in folders that are no packages.
    names = Counter(path.name for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name, number in names.items() if number > 1] == []
