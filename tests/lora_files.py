"""LoRA files for the smallest checkpoint."""

from collections.abc import Callable, Mapping
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from safetensors.numpy import save_file

from hotshot_jax.convert.prepare import open_checkpoint, prepare_component

Tensors = dict[str, np.ndarray]


def matrices(checkpoint: Path, component: str) -> dict[str, tuple[int, ...]]:
    """Shapes `(out, in)` of the matrices of a model's layers, by the module's name."""
    prepared = prepare_component(getattr(open_checkpoint(checkpoint), component), dtype=jnp.float32)
    return {
        name.removesuffix(".weight"): shape
        for name, shape in prepared.shapes.items()
        if name.endswith(".weight") and len(shape) == 2 and "embedding" not in name
    }


def factors(
    checkpoint: Path,
    *,
    choose: Callable[[str], bool],
    component: str = "unet",
    seed: int = 0,
    rank: int = 2,
) -> Tensors:
    """Factors under PEFT's names for the chosen matrices of a model."""
    generator = np.random.default_rng(seed)
    tensors = {}
    for name, (out, inner) in matrices(checkpoint, component).items():
        if choose(name):
            down = generator.standard_normal((rank, inner), np.float32) / np.sqrt(inner)
            tensors[f"{component}.{name}.lora_A.weight"] = down.astype(np.float32)
            tensors[f"{component}.{name}.lora_B.weight"] = generator.standard_normal(
                (out, rank), np.float32
            )
    assert tensors
    return tensors


def is_spatial(name: str) -> bool:
    """Whether a matrix belongs to an attention of the spatial layers."""
    return ".attentions." in name and ".attn" in name


def is_temporal(name: str) -> bool:
    """Whether a matrix belongs to an attention of the temporal layers."""
    return ".temporal_attentions." in name and ".to_" in name


def is_text(name: str) -> bool:
    """Whether a matrix belongs to the attention of a text encoder."""
    return "self_attn" in name


def write_lora(path: Path, tensors: Mapping[str, np.ndarray]) -> Path:
    """Writes a LoRA file and returns its path."""
    save_file(dict(tensors), path)
    return path
