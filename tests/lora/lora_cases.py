"""The tiny SDXL of the parity data, and LoRA files for it."""

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from hotshot_jax.convert.tensors.tensor_source import TensorSource, open_file
from hotshot_jax.lora import ModuleNames, merge_tensor, read_lora
from hotshot_jax.lora.merge import scaled_changes

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


QUERY = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + QUERY.replace(".", "_")
UP, DOWN = normal(64, 3), normal(3, 64)
PRODUCT = UP.astype(np.float64) @ DOWN


def factors(name: str, down=DOWN, up=UP, style="kohya") -> dict[str, np.ndarray]:
    endings = {
        "kohya": ("lora_down.weight", "lora_up.weight"),
        "peft": ("lora_A.weight", "lora_B.weight"),
        "peft_named": ("lora_A.default.weight", "lora_B.default.weight"),
        "dotted": ("lora.down.weight", "lora.up.weight"),
        "text": ("lora_linear_layer.down.weight", "lora_linear_layer.up.weight"),
    }[style]
    return {f"{name}.{ending}": each for ending, each in zip(endings, (down, up), strict=True)}


def difference(source, component="unet", tensor=f"{QUERY}.weight", scale=1.0, **options):
    """What the file adds to one tensor; it must change nothing else."""
    lora = read_lora(source, names(), **options)
    base = state_dict(component)
    merged = merge(base, component, [(lora, scale)])
    assert list(merged) == [tensor]
    return merged[tensor] - base[tensor]


def close(ours, expected):
    # The sum with a weight of order 1 rounds to float32.
    np.testing.assert_allclose(ours, expected, atol=1e-5, rtol=1e-5)


def merge(parameters, component, loras):
    """The tensors that LoRAs change, merged, by name."""
    changes = scaled_changes(component, loras)
    return {name: merge_tensor(parameters[name], each) for name, each in changes.items()}
