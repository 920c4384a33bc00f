"""The small text-to-GIF model that the package brings along; `docs/tiny_model.md` is its card."""

from collections.abc import Mapping
from pathlib import Path

NAME = "the built-in model"
CONDITIONING_SCALE = 1.0
"""The strength that its ControlNets were trained at, and have unless another is asked for."""

_HERE = Path(__file__).parent
_CONTROLNET = "controlnet_"
_LORA = "lora_"


def builtin_checkpoint() -> Path:
    """Its folder, in the diffusers layout."""
    return _HERE / "checkpoint"


def builtin_controlnets() -> Mapping[str, Path]:
    """A ControlNet's folder, in the diffusers layout, for each `control_type` that has one."""
    folders = sorted(_HERE.glob(f"{_CONTROLNET}*/config.json"))
    return {path.parent.name.removeprefix(_CONTROLNET): path.parent for path in folders}


def builtin_loras() -> Mapping[str, Path]:
    """A LoRA's folder for each preset of the command line that has one."""
    folders = sorted(_HERE.glob(f"{_LORA}*/*.safetensors"))
    return {path.parent.name.removeprefix(_LORA): path.parent for path in folders}
