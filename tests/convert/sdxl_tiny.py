"""The tiny SDXL of the parity data as tensors under diffusers' names, and files made of them."""

import json
import runpy
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file

GOLDEN = Path(__file__).parents[1] / "golden"
_RULE = runpy.run_path(str(GOLDEN / "seeded_weights.py"))
MODELS = {
    "unet": "unet_tiny",
    "text_encoder": "clip_l_tiny",
    "text_encoder_2": "clip_g_tiny",
    "vae": "vae_tiny",
}


def config(component: str) -> dict:
    return json.loads((GOLDEN / "models" / f"{MODELS[component]}.config.json").read_text())


def state_dict(component: str, seed: int = 0) -> dict[str, np.ndarray]:
    """All tensors, the UNet's temporal ones included."""
    shapes = _RULE["load_shapes"](GOLDEN / "models" / f"{MODELS[component]}.shapes.json")
    return _RULE["seeded_state_dict"](shapes, seed)


def spatial(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: each for name, each in tensors.items() if ".temporal_attentions." not in name}


def as_source(tensors: dict[str, np.ndarray], path: Path, **metadata: str) -> TensorSource:
    """Writes the tensors to `path` and opens it."""
    tensors = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
    save_file(tensors, path, metadata=metadata or None)
    return open_file(path)
