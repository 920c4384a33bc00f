"""The checkpoint that the package brings along, so that a fresh machine can make a GIF at once.

It is not trained yet: its weights are random numbers, and what it draws looks like noise.
"""

import json
import math
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from hotshot_jax.convert.builders import KINDS, Build, model_builder
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.rules import flat_parameters
from hotshot_jax.convert.staging import staged_folder
from hotshot_jax.convert.to_torch import write_component
from hotshot_jax.version import __version__

NAME = "the built-in model"

_TOKENIZERS = ("tokenizer", "tokenizer_2")


def builtin_checkpoint(cache: Path) -> Path:
    """The folder of the built-in checkpoint, written below `cache` where it is not there yet.

    Raises:
        HotshotError: `cache` cannot be written.
    """
    folder = cache / f"builtin-{__version__}"
    if folder.exists():
        return folder
    with staged_folder(folder) as staged:
        _write(staged)
    return folder


def _write(folder: Path) -> None:
    here = resources.files(__name__)
    configs: dict[str, Any] = json.loads((here / "configs.json").read_text())
    for name in KINDS:
        build = model_builder(name, configs[name], where=f"built-in {name}")
        write_component(folder / name, name, configs[name], _random_module(build))
    for name in _TOKENIZERS:
        with resources.as_file(here / name) as tokenizer:
            shutil.copytree(tokenizer, folder / name)
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    _write_json(folder / "model_index.json", configs["model_index"])


def _random_module(build: Build) -> nnx.Module:
    """A module with standard initial values, drawn by NumPy: JAX would compile each layer's."""
    generator = np.random.default_rng(0)
    module = abstract(build)
    values = {}
    for path, parameter in flat_parameters(module).items():
        value = np.full(parameter.shape, path[-1] == "scale", np.float32)
        if path[-1] in ("kernel", "embedding"):
            fan_in = math.prod(parameter.shape[-4:-1]) if path[-1] == "kernel" else 4
            value = generator.standard_normal(parameter.shape, np.float32) / math.sqrt(fan_in)
        values[path] = value.astype(np.float32)
    return with_parameters(module, values)


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
