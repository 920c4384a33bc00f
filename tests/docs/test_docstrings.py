"""Docstrings of the whole package are in one dialect, Google's: the reference is made from them."""

import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

griffe = pytest.importorskip("griffe", reason="the docs extra is not installed")

ROOT = Path(__file__).parents[2]
# Sections of other dialects, and second names that Google's parser takes for the same section.
OTHER = re.compile(
    r"^ *(:(?:param|returns?|rtype|raises|type)\b|-{3,}$"
    r"|(?:Arguments|Parameters|Params|Return|Throws):$)",
    re.MULTILINE,
)


def complaints(package: "griffe.Module", caplog: pytest.LogCaptureFixture) -> list[str]:
    """What griffe says of the docstrings, and sections of other dialects."""

    def docstrings(each: "griffe.Object | griffe.Alias") -> Iterator["griffe.Docstring"]:
        if each.is_alias:
            return
        if each.docstring is not None:
            yield each.docstring
        for member in each.members.values():
            yield from docstrings(member)

    griffe.patch_loggers(logging.getLogger)
    found = []
    with caplog.at_level(logging.DEBUG):
        for docstring in docstrings(package):
            docstring.parse("google")
            found += [
                f"{docstring.parent.path}: {other}" for other in OTHER.findall(docstring.value)
            ]
    return found + [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING or "Possible section skipped" in record.getMessage()
    ]


def test_they_are_in_one_dialect(caplog: pytest.LogCaptureFixture) -> None:
    package = griffe.load("hotshot_jax", search_paths=[ROOT], allow_inspection=False)
    assert complaints(package, caplog) == []


@pytest.mark.parametrize(
    "docstring",
    [
        "Args:\n    absent: of another function.",
        "Args:\n    given of it nothing is said",
        "Text.\nArgs:\n    given: no line before the section.",
        "Parameters:\n    given: in the other word.",
        "Parameters\n----------\ngiven\n    NumPy's.",
        ":param given: Sphinx's.",
    ],
)
def test_others_are_found(docstring: str, caplog: pytest.LogCaptureFixture) -> None:
    code = f"def f(given: int) -> None:\n    '''Does.\n\n{docstring}\n'''\n"
    with griffe.temporary_visited_module(code) as module:
        assert complaints(module, caplog) != []
