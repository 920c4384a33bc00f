"""Checkpoint folders with fresh or replaced components."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from benchmarks.toy.from_scratch.vocabulary import END, write_tokenizer
from hotshot_jax.convert.builders import KINDS, model_builder
from hotshot_jax.convert.formats.to_torch import write_component
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.convert.tensors.safetensors_file import SafetensorsFile, write_safetensors
from hotshot_jax.errors import HotshotError
from hotshot_jax.training.trainees.lora import LORA_FILE
from hotshot_jax.writing.staging import check_destination, staged_folder

# SDXL's second tokenizer pads with the token of "!".
_TOKENIZERS = {"tokenizer": END, "tokenizer_2": "!"}

Replaced = Mapping[str, tuple[Mapping[str, Any], nnx.Module]]
"""Configuration and module of components by name."""


def create_checkpoint(
    dest: Path, architecture: Mapping[str, Any], words: Sequence[str], seed: int
) -> None:
    """Writes a checkpoint with initial weights.

    Args:
        dest: the folder, which must not exist or be empty.
        architecture: the content of each component's `config.json` by its name, of the scheduler's
            and of `model_index.json`; the vocabulary's size and its last token are filled in.
        words: one token each.
        seed: of the weights.

    Raises:
        HotshotError: the configurations make no model, or the folder cannot be written.
    """
    with staged_folder(dest) as folder:
        for name, pad_token in _TOKENIZERS.items():
            tokens = write_tokenizer(folder / name, words, pad_token=pad_token)
        for index, name in enumerate(KINDS):
            config = dict(architecture[name])
            if name.startswith("text_encoder"):
                config |= {"vocab_size": tokens, "bos_token_id": tokens - 2}
                config |= {"eos_token_id": tokens - 1}
            build = model_builder(name, config, where=name)
            # One program for all layers, since on their own each would be compiled; run once, it is
            # not worth optimising.
            make = jax.jit(
                lambda key, build=build: build(nnx.Rngs(key)),
                compiler_options={"xla_backend_optimization_level": "0"},
            )
            module = make(jax.random.key(seed + index))
            write_component(folder / name, name, config, module)
        (folder / "scheduler").mkdir()
        write_json(folder / "scheduler" / "scheduler_config.json", architecture["scheduler"])
        write_json(folder / "model_index.json", architecture["model_index"])


def replace_components(source: Path, dest: Path, replaced: Replaced) -> None:
    """Copies a checkpoint with other components in place of its own.

    Raises:
        HotshotError: `dest` cannot be written.
    """
    check_destination(dest, source=source)
    with staged_folder(dest) as folder:
        for path in sorted(source.iterdir()):
            if path.is_dir() and path.name not in replaced:
                shutil.copytree(path, folder / path.name)
            elif path.is_file() and path.suffix != ".safetensors":
                # Weights beside the components are a copy of some of theirs.
                shutil.copyfile(path, folder / path.name)
        for name, (config, module) in replaced.items():
            write_component(folder / name, name, config, module)


def to_float16(module: nnx.Module) -> nnx.Module:
    """The module with its parameters rounded.

    Raises:
        HotshotError: a parameter is too large for float16.
    """
    rounded = {
        path: jax.device_put(half(".".join(map(str, path)), leaf))
        for path, leaf in flat_parameters(module).items()
    }
    return with_parameters(module, rounded)


def half(name: str, values: Any) -> np.ndarray:
    """An array rounded to float16.

    Raises:
        HotshotError: a value is too large.
    """
    # By NumPy: JAX would compile a program for each shape.
    with np.errstate(over="ignore"):
        rounded = np.asarray(values).astype(np.float16)
    if not np.isfinite(rounded).all():
        raise HotshotError(f"{name} is too large for float16.")
    return rounded


def pack_lora(source: Path, dest: Path) -> None:
    """Copies a LoRA that was exported here, rounded to float16.

    Raises:
        HotshotError: a value is too large, or `dest` cannot be written.
    """
    lora = SafetensorsFile(source / LORA_FILE)
    tensors = {name: half(name, lora.read(name)) for name in lora.names}
    layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
    with staged_folder(dest) as folder:
        write_safetensors(folder / LORA_FILE, layout, tensors.items(), dict(lora.metadata))


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file as diffusers does."""
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
