"""Checkpoints in the published layout, changed or broken in one place, and looking at files."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from hotshot_jax.convert.tensors.tensor_source import open_file

UNET = "unet/diffusion_pytorch_model.safetensors"
VAE = "vae/diffusion_pytorch_model.safetensors"
TEXT = "text_encoder/model.safetensors"
TEXT_2 = "text_encoder_2/model.safetensors"
TABLE = (
    "down_blocks.0.temporal_attentions.0.transformer_blocks.0.attention_blocks.0"
    ".pos_encoder.positional_encoding"
)

Tensors = dict[str, np.ndarray]


def copy_of(checkpoint: Path, folder: Path) -> Path:
    """A checkpoint to change: its files are links, which `replace` and its kin break first."""
    shutil.copytree(checkpoint, folder, copy_function=os.symlink)
    return folder


def replace(file: Path, content: bytes) -> None:
    """Gives a file other content."""
    file.unlink(missing_ok=True)
    file.write_bytes(content)


def read_tensors(file: Path) -> Tensors:
    """All tensors of a .safetensors file."""
    return {name: np.array(tensor.read()) for name, tensor in open_file(file).items()}


def write_tensors(file: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a .safetensors file in place of what is there."""
    file.unlink(missing_ok=True)
    contiguous = {name: np.ascontiguousarray(tensor) for name, tensor in tensors.items()}
    save_file(contiguous, file, {"format": "pt"})


def change_tensors(file: Path, change: Callable[[Tensors], Any]) -> None:
    """Applies `change` to the tensors of a file."""
    tensors = read_tensors(file)
    change(tensors)
    write_tensors(file, tensors)


def write_shards(file: Path, shard: str, index: str) -> None:
    """Splits a .safetensors file in two, named by a pattern with `{n}`, and writes their index."""
    tensors = read_tensors(file)
    file.unlink()
    weight_map = {}
    for number, part in enumerate((list(tensors)[::2], list(tensors)[1::2]), 1):
        name = shard.format(n=number)
        write_tensors(file.parent / name, {each: tensors[each] for each in part})
        weight_map |= dict.fromkeys(part, name)
    content = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    replace(file.parent / index, json.dumps(content).encode())


def everything(folder: Path) -> dict[str, bytes | None]:
    """Content of every file below a folder, None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def write_hub_cache(checkpoint: Path, cache: Path, repository: str) -> Path:
    """Lays a checkpoint out as the Hub's client keeps a download; gives the snapshot's folder."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    base = cache / f"models--{repository.replace('/', '--')}"
    snapshot = base / "snapshots" / commit
    (base / "refs").mkdir(parents=True)
    (base / "refs" / "main").write_text(commit)
    (base / "blobs").mkdir()
    files = [path for path in sorted(checkpoint.rglob("*")) if path.is_file()]
    for number, file in enumerate(files):
        blob = base / "blobs" / f"{number:040x}"
        shutil.copyfile(file, blob)
        blob.chmod(0o444)
        link = snapshot / file.relative_to(checkpoint)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot
