"""Runs the models on meshes of 8 simulated devices and prints how far they are from one device.

A program of its own, because the number of simulated devices is fixed once JAX has started:
`python tests/parallel/sharded_models.py MESH:CASE+CASE ...` prints one JSON object, by mesh and
case: the relative error, and how often each collective occurs in the compiled program.
"""

import json
import re
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from hotshot_jax.models import (
    AutoencoderKL,
    AutoencoderKLConfig,
    UNet3DConditionModel,
    UNet3DConfig,
)
from hotshot_jax.models.layers.sharding_points import split_over
from hotshot_jax.parallel.mesh import MeshConfig, create_mesh
from hotshot_jax.parallel.rules import state_shardings

BATCH, FRAMES, HEIGHT, WIDTH = 8, 8, 6, 10

# Small, but with everything in it: both kinds of levels, a stack, a downsampler, heads that divide
# by 8 and heads that do not, and 15 pixels on the lower level, which divide by nothing.
UNET = UNet3DConfig(
    block_out_channels=(32, 64),
    down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
    up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
    cross_attention_dim=24,
    attention_head_dim=(2, 4),
    transformer_layers_per_block=(1, 2),
    addition_time_embed_dim=8,
    projection_class_embeddings_input_dim=64,
    layers_per_block=1,
    norm_num_groups=8,
)
VAE = AutoencoderKLConfig(
    block_out_channels=(16, 32),
    down_block_types=("DownEncoderBlock2D",) * 2,
    up_block_types=("UpDecoderBlock2D",) * 2,
    layers_per_block=1,
    norm_num_groups=8,
)


def random_state(module: nnx.Module) -> nnx.State:
    """Random values for all parameters: also those that start at zero must matter."""
    generator = np.random.default_rng(0)

    def value(leaf: Any) -> jax.Array:
        scale = 0.1 if len(leaf.shape) < 2 else 1 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(generator.normal(size=leaf.shape) * scale, jnp.float32)

    return jax.tree.map(value, nnx.state(module, nnx.Param))


def normal(seed: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def relative_error(result: Any, expected: Any) -> float:
    """Largest difference over largest value, the worst over all arrays of a tree."""
    errors = jax.tree.map(
        lambda x, y: float(np.abs(np.asarray(x) - np.asarray(y)).max() / np.abs(y).max()),
        result,
        jax.device_get(expected),
    )
    return max(jax.tree.leaves(errors))


class Case:
    """A function of parameters and inputs, and its result on one device."""

    def __init__(self, module: nnx.Module, function: Any, inputs: tuple[jax.Array, ...]):
        graph = nnx.graphdef(module)
        self.module = module
        self.state = random_state(module)
        self.inputs = inputs
        self.function = lambda state, *inputs: function(nnx.merge(graph, state), *inputs)
        self.expected = jax.jit(self.function)(self.state, *inputs)

    def run_on(self, mesh: jax.sharding.Mesh) -> dict[str, Any]:
        state = jax.device_put(self.state, state_shardings(self.module, mesh))
        with jax.set_mesh(mesh):
            inputs = [jax.device_put(x, _input_sharding(x, mesh)) for x in self.inputs]
            program = jax.jit(self.function).lower(state, *inputs).compile()
            error = relative_error(program(state, *inputs), self.expected)
        return {"error": error, "collectives": collectives(program.as_text())}


def collectives(hlo: str) -> dict[str, int]:
    """How often each kind of collective is written in a compiled program."""
    kinds = re.findall(
        r" (all-gather|all-reduce|all-to-all|collective-permute|reduce-scatter)(?:-start)?\(", hlo
    )
    return {kind: kinds.count(kind) for kind in sorted(set(kinds))}


def _input_sharding(x: jax.Array, mesh: jax.sharding.Mesh) -> NamedSharding:
    axes = [split_over(x.shape[0], ("data", "fsdp"))]
    if x.ndim == 5:
        axes.append(split_over(x.shape[1], ("frames",)))
    return NamedSharding(mesh, PartitionSpec(*axes))


def unet_inputs() -> tuple[jax.Array, ...]:
    return (
        normal(1, BATCH, FRAMES, HEIGHT, WIDTH, 4),
        jnp.linspace(1.0, 999.0, BATCH),
        normal(2, BATCH, 7, 24),
        normal(3, BATCH, 16),
        jnp.abs(normal(4, BATCH, 6)) * 500,
    )


def gradients(module: Any, *inputs: jax.Array) -> Any:
    return jax.grad(lambda module: jnp.square(module(*inputs)).mean())(module)


def temporal_gradients(module: Any, *inputs: jax.Array) -> Any:
    graph, temporal, rest = nnx.split(module, nnx.PathContains("temporal_attentions"), ...)

    def loss(temporal: Any) -> jax.Array:
        return jnp.square(nnx.merge(graph, temporal, rest)(*inputs)).mean()

    return jax.grad(loss)(temporal)


def build(name: str) -> Case:
    if name.startswith("decode"):
        vae = nnx.eval_shape(lambda: AutoencoderKL(VAE, rngs=nnx.Rngs(0)))
        latents = normal(5, 2, FRAMES, 3, 5, 4)
        if name == "decode_images":
            latents = latents.reshape(2 * FRAMES, 3, 5, 4)
        return Case(vae, lambda module, latents: module.decode(latents), (latents,))
    unet = nnx.eval_shape(lambda: UNet3DConditionModel(UNET, rngs=nnx.Rngs(0)))
    functions = {
        "unet": lambda module, *inputs: module(*inputs),
        "gradients": gradients,
        "temporal_gradients": temporal_gradients,
    }
    return Case(unet, functions[name], unet_inputs())


def main(arguments: list[str]) -> None:
    assert jax.device_count() == 8
    cases: dict[str, Case] = {}
    results: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        text, _, names = argument.partition(":")
        config = MeshConfig.parse(text)
        mesh = create_mesh(config, jax.devices()[: config.size])
        results[text] = {}
        for name in names.split("+"):
            if name not in cases:
                cases[name] = build(name)
            results[text][name] = cases[name].run_on(mesh)
        print(text, results[text], file=sys.stderr, flush=True)
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1:])
