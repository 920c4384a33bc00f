"""The API reference: a page for every public name, made from `hotshot_jax/__init__.py`.

Names are shown by their public path. Where they are defined is found by following the imports
there, so that modules can move without a change here.
"""

from typing import Any

import griffe
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import hotshot_jax

_FOLDER = "reference"
_LIST = "<!-- public names -->"
_NAMES = [name for name in hotshot_jax.__all__ if not name.startswith("_")]


def on_config(config: MkDocsConfig) -> None:
    """Adds the pages to the navigation, after the page that lists them."""
    nav: list[Any] = config.nav or []
    (section,) = (pages for item in nav for pages in item.values() if f"{_FOLDER}.md" in pages)
    section.extend({name: f"{_FOLDER}/{name}.md"} for name in sorted(_NAMES, key=str.lower))


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds the pages."""
    for name in _NAMES:
        content = f"---\ntitle: {name}\n---\n\n::: hotshot_jax.{name}\n"
        files.append(File.generated(config, f"{_FOLDER}/{name}.md", content=content))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Puts a table of all names, by the package that they come from, where a page asks for it."""
    return markdown.replace(_LIST, _table()) if _LIST in markdown else markdown


def _table() -> str:
    package = griffe.load("hotshot_jax", search_paths=["."], allow_inspection=False)
    rows: dict[str, list[str]] = {}
    for name in _NAMES:
        target: Any = package[name].final_target
        summary = target.docstring.value.partition("\n\n")[0].replace("\n", " ")
        row = f"| [`{name}`]({_FOLDER}/{name}.md) | {summary} |"
        rows.setdefault(target.path.split(".")[1], []).append(row)
    parts = []
    for module, lines in sorted(rows.items()):
        about = package[module].docstring
        text = about.value.partition("\n")[0] if about else ""
        parts.append(
            f"## `hotshot_jax.{module}`\n\n{text}\n\n| name | what it is |\n| --- | --- |\n"
            + "\n".join(lines)
        )
    return "\n\n".join(parts)
