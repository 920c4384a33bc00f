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
COMPONENTS = ("unet", "text_encoder", "text_encoder_2", "vae")
# Head counts do not follow from shapes.
HEADS = {
    "unet": {"attention_head_dim": [2, 4, 8]},
    "text_encoder": {"num_attention_heads": 3},
    "text_encoder_2": {"num_attention_heads": 5},
}
# Without text encoders nothing says how wide the pooled text is, unless it is SDXL's.
UNET_ALONE = {"unet": {**HEADS["unet"], "addition_time_embed_dim": 8}}


def config(component: str) -> dict:
    return json.loads((GOLDEN / "models" / f"{MODELS[component]}.config.json").read_text())


def state_dict(component: str, seed: int = 0) -> dict[str, np.ndarray]:
    """All tensors, the UNet's temporal ones included."""
    shapes = _RULE["load_shapes"](GOLDEN / "models" / f"{MODELS[component]}.shapes.json")
    return _RULE["seeded_state_dict"](shapes, seed)


def spatial(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: each for name, each in tensors.items() if ".temporal_attentions." not in name}


def write(tmp_path: Path, tensors: dict[str, np.ndarray]) -> TensorSource:
    return as_source(tensors, tmp_path / "model.safetensors")


def as_source(tensors: dict[str, np.ndarray], path: Path, **metadata: str) -> TensorSource:
    """Writes the tensors to `path` and opens it."""
    tensors = {name: np.ascontiguousarray(each) for name, each in tensors.items()}
    save_file(tensors, path, metadata=metadata or None)
    return open_file(path)


def contents(source: TensorSource) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(source.read(name)) for name in source.names}
