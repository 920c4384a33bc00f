"""Tiny ControlNets with the same weights here and in diffusers, and inputs for both."""

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.unet.unet import Residuals

GOLDEN = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(GOLDEN))

from seeded_weights import seeded_tensor  # noqa: E402

# The golden data's own round-off is 2.4e-5 of values around 8; two float32 implementations differ
# by a few times that. The bound asked for is 1e-4 relative to the largest value.
TOLERANCE = 1e-4

ARGUMENTS = (
    "sample",
    "timestep",
    "encoder_hidden_states",
    "text_embeds",
    "time_ids",
    "controlnet_cond",
)

BASE: dict[str, Any] = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "attention_head_dim": (2, 4),
    "block_out_channels": (16, 32),
    "conditioning_embedding_out_channels": (4, 6, 8, 10),
    "cross_attention_dim": 24,
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 20,
    "transformer_layers_per_block": (1, 2),
    "use_linear_projection": True,
}

# One level, for what does not depend on the shape.
SMALL = BASE | {
    "attention_head_dim": 2,
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "conditioning_embedding_out_channels": (4, 6),
    "transformer_layers_per_block": 1,
}


def golden_json(name: str) -> dict[str, Any]:
    return json.loads((GOLDEN / name).read_text())


def with_formula_weights(module: Any, seed: int) -> Any:
    """The module with the weights that the formula gives to PyTorch's names."""
    parameters = {
        path: np.zeros(leaf.shape, np.float32) for path, leaf in flat_parameters(module).items()
    }
    for name, slot in torch_slots(module).items():
        target = parameters[slot.path]
        target = target if slot.layer is None else target[slot.layer]
        target[...] = slot.to_flax(seeded_tensor(name, slot.shape, seed))
    return with_parameters(module, {path: jnp.asarray(x) for path, x in parameters.items()})


def build(model: type, config: ControlNetConfig, seed: int) -> Any:
    return with_formula_weights(nnx.eval_shape(lambda: model(config, rngs=nnx.Rngs(0))), seed)


def torch_twin(model: type, config: dict[str, Any], seed: int) -> Any:
    twin = model(**config).eval().requires_grad_(False)
    twin.load_state_dict(
        {
            name: torch.from_numpy(seeded_tensor(name, tuple(tensor.shape), seed))
            for name, tensor in twin.state_dict().items()
        }
    )
    return twin


def inputs(
    config: ControlNetConfig, *, batch: int, frames: int, height: int, width: int, kinds: int = 1
) -> dict[str, np.ndarray]:
    """Random inputs in the layout of this package; `controlnet_cond` is stacked over kinds."""
    random = np.random.default_rng([batch, frames, height, width, kinds])
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    ratio = config.size_ratio
    arrays = {
        "sample": random.normal(size=(batch, frames, height, width, config.in_channels)),
        "timestep": random.integers(0, 1000, size=batch),
        "encoder_hidden_states": random.normal(size=(batch, 7, config.cross_attention_dim)),
        "text_embeds": random.normal(size=(batch, pooled)),
        "time_ids": random.integers(0, 1024, size=(batch, 6)),
        "controlnet_cond": random.uniform(
            size=(
                kinds,
                batch,
                frames,
                ratio * height,
                ratio * width,
                config.conditioning_channels,
            )
        ),
    }
    return {name: array.astype(np.float32) for name, array in arrays.items()}


def quickly(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compiles without optimising: these models run once, and compiling takes most of the time."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


def run(model: Any, arrays: dict[str, np.ndarray], scale: Any = 1.0, **options: Any) -> Residuals:
    """Runs a ControlNet of this package, compiled once for each shape."""
    graph, state = nnx.split(model)
    return _compiled(graph, tuple(options.items()))(state, arrays, scale)


@functools.cache
def _compiled(graph: Any, options: tuple[tuple[str, Any], ...]) -> Callable[..., Residuals]:
    @quickly
    def call(state: Any, arrays: dict[str, jax.Array], scale: jax.Array) -> Residuals:
        model = nnx.merge(graph, state)
        *others, cond = (arrays[name] for name in ARGUMENTS)
        condition = model.embed_condition(*cond)
        return model(*others, condition, conditioning_scale=scale, **dict(options))

    return call


def fold(array: np.ndarray) -> torch.Tensor:
    """`[..., frames, height, width, channels]` as PyTorch's `[rows, channels, height, width]`."""
    rows = array.reshape(-1, *array.shape[-3:])
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(rows, -1, 1)))


def torch_arguments(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    """The inputs as diffusers takes them: frames in the batch, all text repeated for each."""
    frames = arrays["sample"].shape[1]
    repeated = {
        name: torch.from_numpy(array).repeat_interleave(frames, dim=0)
        for name, array in arrays.items()
        if name not in ("sample", "controlnet_cond")
    }
    return {
        "sample": fold(arrays["sample"]),
        "timestep": repeated["timestep"],
        "encoder_hidden_states": repeated["encoder_hidden_states"],
        "added_cond_kwargs": {key: repeated[key] for key in ("text_embeds", "time_ids")},
        "return_dict": False,
    }


def assert_equal(ours: Residuals, theirs: Any, tolerance: float = TOLERANCE) -> None:
    """Compares with diffusers' (down blocks, mid block), relative to the largest value of each."""
    down_blocks, mid_block = theirs
    assert len(ours.down_blocks) == len(down_blocks)
    for mine, other in zip(
        [*ours.down_blocks, ours.mid_block], [*down_blocks, mid_block], strict=True
    ):
        expected = np.asarray(other)
        assert np.abs(expected).max() > 1e-3
        error = np.abs(np.asarray(fold(np.asarray(mine))) - expected).max()
        assert error <= tolerance * np.abs(expected).max()
