"""Files of the repository that pages link to and that are no pages: each is shown on one."""

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

# Code blocks come first, so that what looks like a link in them is none.
_LINK = re.compile(
    r"^(?P<fence>```+).*?^(?P=fence)$|(?<=\]\()(?P<link>(?![a-z]+:|/|#)[^)#\s]+)",
    re.MULTILINE | re.DOTALL,
)
_DOCS = "docs/"
_FOLDER = "repository/"


def on_files(files: Files, config: MkDocsConfig) -> None:
    """Adds a page for every file outside `docs/` that a page links to, and for those in turn."""
    root = Path(config.docs_dir).parent
    waiting = list(files.documentation_pages())
    while waiting:
        page = waiting.pop()
        for link in (found["link"] for found in _LINK.finditer(page.content_string)):
            name = _target(page.src_uri, link or "")
            if link is None or name.startswith(_DOCS) or files.get_file_from_path(_shown_at(name)):
                continue
            if not (root / name).is_file():
                raise PluginError(f"{page.src_uri} links to {link}, which is no file here.")
            text = (root / name).read_text()
            if not name.endswith(".md"):
                text = f"# {name}\n\n``````{Path(name).suffix[1:]}\n{text}\n``````\n"
            shown = File.generated(
                config, _shown_at(name), content=text, inclusion=InclusionLevel.NOT_IN_NAV
            )
            files.append(shown)
            waiting.append(shown)


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Points the links at those pages."""
    here = page.file.src_uri

    def between_pages(found: re.Match[str]) -> str:
        if found["link"] is None:
            return found[0]
        return relpath(_shown_at(_target(here, found["link"])), dirname(here))

    return _LINK.sub(between_pages, markdown)


def _target(page: str, link: str) -> str:
    """The file that a page links to, relative to the repository's root."""
    within = page.removeprefix(_FOLDER) if page.startswith(_FOLDER) else _DOCS + page
    return normpath(join(dirname(within), link))


def _shown_at(name: str) -> str:
    """The page on which a file of the repository is shown."""
    if name.startswith(_DOCS):
        return name.removeprefix(_DOCS)
    return _FOLDER + (name if name.endswith(".md") else f"{name}.md")
