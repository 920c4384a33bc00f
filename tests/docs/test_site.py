"""The documentation site: built strictly, complete, without dead links, fetching nothing."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import hotshot_jax

pytest.importorskip("mkdocs", reason="the docs extra is not installed")

ROOT = Path(__file__).parents[2]
# As `python -m mkdocs`, with a JAX that cannot be imported.
BUILD = "import sys; sys.modules['jax'] = None; from mkdocs.__main__ import cli; cli()"
SHOWN_ELSEWHERE = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")


class Links(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, page: Path):
        super().__init__()
        self.anchors: set[str] = {""}
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(page.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.anchors.update(values[name] for name in ("id", "name") if name in values)
        if tag == "a":
            self.links += [values["href"]] if "href" in values else []
        else:
            self.loads += [values[name] for name in ("src", "href") if name in values]


def built(folder: Path) -> dict[Path, Links]:
    # Not --quiet, which would keep warnings from --strict too.
    command = [sys.executable, "-c", BUILD, "build", "--strict", "--site-dir", folder]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return {page: Links(page) for page in folder.rglob("*.html")}


def dead(pages: dict[Path, Links], page: Path, link: str) -> bool:
    """Whether a link within the site leads nowhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme not in ("https", "http", "data")
    target = Path(os.path.normpath(page.parent / unquote(parts.path))) if parts.path else page
    if target.is_dir():
        target = target / "index.html"
    if target not in pages:
        return not target.is_file()
    return unquote(parts.fragment) not in pages[target].anchors


def test_the_site(tmp_path: Path) -> None:
    pages = built(tmp_path / "site")
    # That of missing pages is opened under any address, and its links are absolute.
    pages = {page: links for page, links in pages.items() if page.name != "404.html"}

    assert [
        (str(page.relative_to(tmp_path)), link)
        for page, links in pages.items()
        for link in links.links + links.loads
        if dead(pages, page, link)
    ] == []

    # Nothing is fetched from elsewhere when a page is opened.
    loads = {load for links in pages.values() for load in links.loads}
    assert [load for load in loads if urlsplit(load).netloc] == []
    for sheet in (tmp_path / "site").rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)['\"]?(https?:)?//", sheet.read_text()), sheet

    for name in set(hotshot_jax.__all__) - {"__version__"}:
        page = tmp_path / "site" / "reference" / f"{name}.html"
        assert f"hotshot_jax.{name}" in pages[page].anchors
        assert f"reference/{name}.html" in pages[tmp_path / "site" / "reference.html"].links

    # The same anchors are meant by links from pages that are read in the repository.
    for name in SHOWN_ELSEWHERE:
        for link in re.findall(r"\]\((?![a-z]+:)([^)]+)\)", (ROOT / name).read_text()):
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path
            assert target.exists(), f"{name}: {link}"
            if anchor and path:
                page = tmp_path / "site" / f"{target.stem}.html"
                assert anchor in pages[page].anchors, f"{name}: {link}"
