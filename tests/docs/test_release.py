"""Version, changelog and citation speak of the same release."""

import re
from pathlib import Path

import yaml

from hotshot_jax.version import __version__

ROOT = Path(__file__).parents[2]


def test_the_newest_release_is_this_version() -> None:
    releases = re.findall(
        r"^## (\S+) \((\d{4}-\d\d-\d\d|unreleased)\)$",
        (ROOT / "CHANGELOG.md").read_text(),
        re.MULTILINE,
    )
    headings = re.findall(r"^## .*$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert len(releases) == len(headings)
    assert releases[0][0] == __version__
    released = [release for release in releases if release[1] != "unreleased"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == released[0]
