"""The tiny SDXL of the parity data, and LoRA files for it."""

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from hotshot_jax.convert.tensor_source import TensorSource, open_file
from hotshot_jax.lora import ModuleNames

GOLDEN = Path(__file__).parents[1] / "golden"
MODELS = {
    "unet": "unet_tiny",
    "text_encoder": "clip_l_tiny",
    "text_encoder_2": "clip_g_tiny",
}
_RULE = runpy.run_path(str(GOLDEN / "seeded_weights.py"))


def config(component: str) -> dict:
    return json.loads((GOLDEN / "models" / f"{MODELS[component]}.config.json").read_text())


@cache
def state_dict(component: str) -> dict[str, np.ndarray]:
    shapes = _RULE["load_shapes"](GOLDEN / "models" / f"{MODELS[component]}.shapes.json")
    return _RULE["seeded_state_dict"](shapes)


@cache
def names() -> ModuleNames:
    return ModuleNames(
        {name: {key: each.shape for key, each in state_dict(name).items()} for name in MODELS}
    )


def case(name: str) -> dict[str, np.ndarray]:
    return load_file(GOLDEN / "cases" / f"{name}.safetensors")


def write(path: Path, tensors: dict[str, np.ndarray], **metadata: str) -> TensorSource:
    """Writes a LoRA file and opens it."""
    # Not ascontiguousarray, which gives scalars an axis.
    tensors = {name: np.asarray(each, order="C") for name, each in tensors.items()}
    save_file(tensors, path, metadata=metadata or None)
    return open_file(path)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).normal(size=shape).astype(np.float32)
