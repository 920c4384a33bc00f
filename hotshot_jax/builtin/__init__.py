"""The small text-to-GIF model that the package brings along; `docs/tiny_model.md` is its card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.files.parsed import parse_json

NAME = "the built-in model"

_HERE = Path(__file__).parent


def builtin_checkpoint() -> Path:
    """Its folder, in the diffusers layout."""
    return _HERE / "checkpoint"


def builtin_settings() -> Mapping[str, Any]:
    """The settings of `infer.py` that it was trained for, where they are not Hotshot-XL's."""
    settings: dict[str, Any] = parse_json((builtin_checkpoint() / "settings.json").read_bytes())
    return settings
