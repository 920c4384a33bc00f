"""Containers install what the README says: the lock, and extras that there are."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted((ROOT / "docker").glob("*.Dockerfile"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_container_installs_the_lock_and_starts_the_command(file: Path) -> None:
    text = file.read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (extras,) = re.findall(r'pip install --no-cache-dir -c constraints.txt "\.\[(.+)\]"', text)
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    (command,) = re.findall(r'ENTRYPOINT \["(.+)"\]', text)
    assert command in project["scripts"]
    (base,) = re.findall(r"^FROM python:(3\.\d+)-slim$", text, re.MULTILINE)
    assert f"Programming Language :: Python :: {base}" in project["classifiers"]
    assert len(text.splitlines()) <= 15


def test_there_is_one_for_each_kind_of_device() -> None:
    assert {file.name.partition(".")[0] for file in FILES} == {"cpu", "cuda", "tpu"}
