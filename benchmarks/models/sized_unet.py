"""The UNet in several sizes with random weights, and its spatial twin in PyTorch."""

import dataclasses
import inspect
import json
import math
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.compile.abstract_arrays import CONFIGS, MODELS
from hotshot_jax.models import UNet3DConditionModel, UNet3DConfig

TOKENS = 77

_MID = {
    "block_out_channels": [128, 256, 512],
    "attention_head_dim": [2, 4, 8],
    "transformer_layers_per_block": [1, 1, 2],
    "cross_attention_dim": 256,
}


@dataclasses.dataclass(frozen=True)
class UNetSize:
    """A UNet and what it is run on.

    Attributes:
        values: of its `config.json`.
        frames: of a video.
        height: of the latents.
        width: of the latents.
    """

    values: dict[str, Any]
    frames: int
    height: int
    width: int

    @property
    def config(self) -> UNet3DConfig:
        """The configuration, read."""
        return UNet3DConfig.from_dict(self.values)

    @property
    def pooled_channels(self) -> int:
        """Width of the pooled text."""
        config = self.config
        return config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim


def unet_size(name: str) -> UNetSize:
    """ "tiny", "mid" (about 80 million parameters), or "full" at 512 x 512."""
    model = CONFIGS["full" if name == "full" else "tiny"][0]
    values = json.loads((MODELS / f"{model}.config.json").read_text())
    if name == "full":
        return UNetSize(values, 8, 64, 64)
    if name == "mid":
        return UNetSize(values | _MID, 4, 16, 16)
    return UNetSize(values, 8, 16, 16)


def random_unet(size: UNetSize, dtype: Any) -> UNet3DConditionModel:
    """The UNet on the default device; the values are random, since zeros may run faster."""
    module = nnx.eval_shape(
        lambda: UNet3DConditionModel(size.config, rngs=nnx.Rngs(0), dtype=dtype, param_dtype=dtype)
    )
    return random_arrays(module)


def random_arrays(module: Any) -> Any:
    """Random numbers of a size that keeps activations finite, in place of a module's shapes."""

    # Equal shapes share a program.
    @jax.jit(static_argnums=(0, 1))
    def draw(shape: tuple[int, ...], dtype: Any, key: jax.Array) -> jax.Array:
        fan_in = math.prod(shape[-4:-1]) if len(shape) > 1 else 1
        scale = fan_in**-0.5 if len(shape) > 1 else 0.1
        centre = 0.0 if len(shape) > 1 else 0.5
        return (centre + scale * jax.random.normal(key, shape)).astype(dtype)

    leaves, structure = jax.tree.flatten(module)
    keys = jax.random.split(jax.random.key(0), len(leaves))
    return jax.tree.unflatten(
        structure,
        [draw(leaf.shape, leaf.dtype, key) for leaf, key in zip(leaves, keys, strict=True)],
    )


def torch_unet(size: UNetSize, dtype: str, device: str) -> Any:
    """diffusers' UNet of the same spatial layers; it has no temporal ones.

    Args:
        size: of the UNet.
        dtype: PyTorch's name.
        device: PyTorch's name.
    """
    import torch
    from diffusers import UNet2DConditionModel

    known = inspect.signature(UNet2DConditionModel.__init__).parameters
    values = {name: value for name, value in size.values.items() if name in known}
    for key in ("down_block_types", "up_block_types"):
        values[key] = [name.replace("3D", "2D") for name in values[key]]
    values["mid_block_type"] = "UNetMidBlock2DCrossAttn"
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(**{k: v for k, v in values.items() if v is not None})
    return unet.to(getattr(torch, dtype)).eval().requires_grad_(False)


def unet_inputs(size: UNetSize, dtype: Any) -> dict[str, jax.Array]:
    """Random inputs of one step with guidance: a batch of two."""
    keys = jax.random.split(jax.random.key(1), 3)
    shape = (2, size.frames, size.height, size.width, 4)
    text = (2, TOKENS, size.config.cross_attention_dim)
    return {
        "sample": jax.random.normal(keys[0], shape, dtype),
        "text": jax.random.normal(keys[1], text, dtype),
        "pooled": jax.random.normal(keys[2], (2, size.pooled_channels), dtype),
        "time_ids": jnp.full((2, 6), 512.0),
    }
