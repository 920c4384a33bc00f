"""What can be asked for by name: the LoRAs and ControlNets of a folder."""

import os
from collections.abc import Mapping
from pathlib import Path

from hotshot_jax.builtin import builtin_controlnets
from hotshot_jax.errors import UsageError

_WEIGHTS = ".safetensors"


def named_models(flag: str, folder: str | None) -> dict[str, str]:
    """The models of a folder, by their files' names without the ending.

    Args:
        flag: that names the folder.
        folder: None for none.

    Raises:
        UsageError: there is no such folder, or a name stands for two models.
    """
    if folder is None:
        return {}
    place = Path(os.path.expanduser(folder))
    if not place.is_dir():
        raise UsageError(f"--{flag} {folder}: there is no such folder.")
    found: dict[str, str] = {}
    for path in sorted(place.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.suffix == _WEIGHTS):
            continue
        name = path.name if path.is_dir() else path.stem
        if name in found:
            raise UsageError(f"--{flag} {folder}: {name} stands for two models; rename one.")
        found[name] = str(path)
    return found


def offered_controlnets(folder: str | None, *, builtin: bool) -> Mapping[str, str]:
    """ControlNets by name; those of the built-in model are called by what they follow.

    Args:
        folder: see `named_models`.
        builtin: whether the built-in model is served.

    Raises:
        UsageError: see `named_models`.
    """
    own = {name: str(path) for name, path in builtin_controlnets().items()} if builtin else {}
    return own | named_models("controlnet_dir", folder)
