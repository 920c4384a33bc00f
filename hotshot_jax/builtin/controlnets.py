"""The ControlNets that the package brings along for the built-in model."""

from collections.abc import Mapping
from pathlib import Path

CONDITIONING_SCALE = 1.0
"""The strength that they were trained at, and have unless another is asked for."""

_PREFIX = "controlnet_"


def builtin_controlnets() -> Mapping[str, Path]:
    """A folder in the diffusers layout for each `control_type` that there is one for."""
    folders = sorted(Path(__file__).parent.glob(f"{_PREFIX}*/config.json"))
    return {path.parent.name.removeprefix(_PREFIX): path.parent for path in folders}
