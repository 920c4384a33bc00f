"""Flags in running text stay in one piece: browsers would break the line after their dashes."""

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_INLINE_CODE = re.compile(r"<code>[^<]*</code>")
_FLAG = re.compile(r"--\w[\w-]*")


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Marks them."""
    return _INLINE_CODE.sub(
        lambda code: _FLAG.sub(r'<span class="flag">\g<0></span>', code[0]), html
    )
