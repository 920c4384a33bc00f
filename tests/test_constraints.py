"""constraints.txt, the lock of the test command, against the floors of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
LINES = [
    line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
]


def floors() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["test"]]
    for extra in ("train", "control", "docs", "serve"):
        texts += extras[extra]
    return [
        each for each in map(Requirement, texts) if canonicalize_name(each.name) != project["name"]
    ]


def locked(python: str, machine: str = "x86_64") -> dict[str, Requirement]:
    """What pip is held to on one Linux interpreter."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.1",
        "sys_platform": "linux",
        "platform_machine": machine,
    }
    result = {}
    for requirement in map(Requirement, LINES):
        if requirement.marker is None or requirement.marker.evaluate(environment):
            name = canonicalize_name(requirement.name)
            assert name not in result, f"two releases of {name} for Python {python}"
            result[name] = requirement
    return result


@pytest.mark.parametrize("python", ["3.11", "3.12"])
def test_every_dependency_is_held_to_a_release_that_its_floor_admits(python: str) -> None:
    constraints = locked(python)
    for floor in floors():
        (pin,) = constraints[canonicalize_name(floor.name)].specifier
        assert pin.operator == "=="
        assert pin.version in floor.specifier, f"{floor} against {pin}: run .ci/lock"


def test_the_lock_fits_every_machine() -> None:
    """No hosts, folders or hashes, no builds of one machine, and nothing that binds `.[cuda]`."""
    for line in LINES:
        assert re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+( ; .+)?", line), line
        assert not line.startswith(("nvidia-", "triton", "cuda-"))


def test_ci_installs_by_the_lock() -> None:
    readme = (ROOT / "README.md").read_text()
    blocks = re.findall(r"<!-- ci -->\n```bash\n(.*?)```", readme, flags=re.DOTALL)
    installs = [line for block in blocks for line in block.splitlines() if "pip install" in line]
    assert len(installs) == len(blocks) == 2
    assert all(line.startswith("pip install -c constraints.txt ") for line in installs)
