"""Finding a LoRA: what the user names, the file that is meant, PEFT's configuration beside it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from hotshot_jax.convert.tensors.file_content import read_json_object
from hotshot_jax.convert.tensors.tensor_source import open_file
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora.adapter_config import AdapterConfig
from hotshot_jax.lora.names import ModuleNames
from hotshot_jax.lora.read import Lora, read_lora

_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_CONFIG = "adapter_config.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def parse_lora(argument: str) -> tuple[str, float]:
    """Splits `PATH[:SCALE]`.

    Args:
        argument: a path or Hub id, with or without a strength (1 without).

    Raises:
        UsageError: what follows the last colon is no finite number, and no such file exists.
    """
    path, colon, scale = argument.rpartition(":")
    if not colon or Path(argument).exists():
        return argument, 1.0
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not path or not math.isfinite(value):
        raise UsageError(
            f"`loras` {argument}: {scale!r} is not a scale; expected PATH or PATH:NUMBER, such as "
            "style.safetensors:0.8."
        )
    return path, value


def find_lora(path: Path) -> Path:
    """The weights in a file or folder.

    Raises:
        HotshotError: there is nothing, a pickle only, or several files to choose from.
    """
    if path.is_dir():
        named = [path / name for name in _USUAL_NAMES if (path / name).is_file()]
        files = named[:1] or sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        if files:
            listed = ", ".join(file.name for file in files[:5])
            raise HotshotError(f"{path} holds {len(files)} files ({listed}); name the one to use.")
        pickles = sorted(file for file in path.iterdir() if file.suffix in _PICKLES)
        if pickles:
            return find_lora(pickles[0])
        raise HotshotError(f"{path} holds no .safetensors file.")
    if not path.exists():
        raise HotshotError(f"{path}: there is no such LoRA file or folder.")
    if path.suffix in _PICKLES:
        raise HotshotError(
            f"{path} is a pickle, which can run any code when it is read; use a .safetensors file."
        )
    return path


def open_lora(path: Path, names: ModuleNames, *, allow_partial: bool = False) -> Lora:
    """Opens a LoRA in a local file or folder.

    Args:
        path: the file, or a folder with it and perhaps PEFT's `adapter_config.json`.
        names: the modules of the model, by their spellings.
        allow_partial: whether keys that fit nowhere are left out instead of refused.

    Raises:
        HotshotError: there is no file, or it cannot be used (see `read_lora`).
    """
    file = find_lora(path)
    source = open_file(file)
    beside = file.with_name(_CONFIG)
    config = None
    if file.name in _USUAL_NAMES and beside.is_file():
        config = AdapterConfig.from_json(read_json_object(beside), beside)
    return read_lora(source, names, config=config, allow_partial=allow_partial)


def select_lora_files(names: Sequence[str]) -> list[str]:
    """Which files of a Hub repository to download for a LoRA; for `convert.hub.resolve`.

    Args:
        names: all files of the repository.

    Raises:
        HotshotError: there is no LoRA in it, or several that have no usual name.
    """
    top = [name for name in names if "/" not in name]
    files = [name for name in _USUAL_NAMES if name in top][:1]
    files = files or [name for name in top if name.endswith(".safetensors")]
    if len(files) != 1:
        listed = f"{len(files)} files ({', '.join(files[:5])})" if files else "no .safetensors file"
        raise HotshotError(
            f"The repository holds {listed}; expected one LoRA. Download the one that you "
            "want and give its path."
        )
    return files + [name for name in (_CONFIG,) if name in top]
