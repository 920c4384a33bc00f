"""What the pages say of the program is so: messages, flags, files and commands."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest

from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.run import in_flags
from hotshot_jax.cli.train.settings import TrainSettings

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "benchmarks" / "README.md"]
HOLE = "\0"


def printed_texts() -> set[str]:
    """The longer texts in the package's code, with `HOLE` for what is filled in."""
    texts = set()
    for file in (ROOT / "hotshot_jax").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = (
                    part.value if isinstance(part, ast.Constant) else HOLE for part in node.values
                )
                texts.add("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.add(re.sub(r"%[.\d]*[sdrg]", HOLE, node.value))
    return {in_flags(text) for text in texts if len(text.replace(HOLE, "")) > 20}


def flags(settings: type) -> set[str]:
    return {field.name for field in dataclasses.fields(settings)} | {"config", "help"}


def test_troubleshooting_quotes_the_program() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    messages = re.findall(r"^```text\n(.*?)\n```$", page, re.MULTILINE | re.DOTALL)
    assert len(messages) > 20
    known = [
        (re.compile(".+".join(map(re.escape, text.strip().split(HOLE))), re.DOTALL), len(text))
        for text in printed_texts()
    ]
    unknown = [
        message
        for message in messages
        # What is filled in may be half of it, so that no general text is taken for a message.
        if not any(2 * length > len(message) and text.fullmatch(message) for text, length in known)
    ]
    assert unknown == []
    # Each has a cause and a cure, not the next message, below it.
    assert not re.search(r"^```\n+(```text|#)", page, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_files_exist(page: Path) -> None:
    text = page.read_text()
    for name in re.findall(r"`((?:hotshot_jax|benchmarks|configs|tests|docs)/[\w./-]+)`", text):
        assert (ROOT / name).exists(), name
    for module in re.findall(r"python -m ((?:hotshot_jax|benchmarks|convert)[\w.]*\w)", text):
        place = ROOT.joinpath(*module.split("."))
        assert place.with_suffix(".py").exists() or (place / "__main__.py").exists(), module
    for command, given in re.findall(
        r"python (infer|train)\.py((?:\\\n|[^\n`|])*)", text.replace("\\\n", " ")
    ):
        known = flags(InferSettings if command == "infer" else TrainSettings)
        for flag in re.findall(r"(?<![\w-])--(?:no-)?(\w+)", given):
            assert flag in known, f"{command}.py --{flag}"


def test_flags_beside_those_of_other_programs_exist() -> None:
    """In the tables of *Coming from another program*, columns 2 and 3 are ours."""
    page = (ROOT / "docs" / "coming_from.md").read_text()
    rows = [line.split("|") for line in page.splitlines() if line.startswith("|")]
    assert all(len(row) == 5 for row in rows)
    for _, there, here, differs, _ in rows:
        same = there if "the same" in here else ""
        for code in re.findall(r"`[^`]+`", f"{same} {here} {differs}"):
            known = flags(TrainSettings if "train.py" in code else InferSettings)
            if "-m convert" in code:
                known = {"temporal"}
            for flag in re.findall(r"(?<![\w-])--(?:no-)?(\w+)", code):
                # Flags of training that the last column names stand there alone.
                assert flag in known | (flags(TrainSettings) if code in differs else set()), flag
