"""The checkpoint that the package brings along, so that a fresh machine can make a GIF at once.

It is not trained yet: its weights are random numbers, and what it draws looks like noise.
"""

import json
import shutil
from importlib import resources
from pathlib import Path
from typing import Any

from flax import nnx

from hotshot_jax.convert.builders import KINDS, model_builder
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
        write_component(folder / name, name, configs[name], build(nnx.Rngs(0)))
    for name in _TOKENIZERS:
        with resources.as_file(here / name) as tokenizer:
            shutil.copytree(tokenizer, folder / name)
    (folder / "scheduler").mkdir()
    _write_json(folder / "scheduler" / "scheduler_config.json", configs["scheduler"])
    _write_json(folder / "model_index.json", configs["model_index"])


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
