"""What the built-in model is used with."""

import json
from collections.abc import Mapping
from typing import Any

from hotshot_jax.builtin import builtin_checkpoint


def builtin_settings() -> Mapping[str, Any]:
    """The settings of `infer.py` that it was trained for, where they are not Hotshot-XL's."""
    settings: dict[str, Any] = json.loads((builtin_checkpoint() / "settings.json").read_bytes())
    return settings
