"""Deep transformer stacks: `lax.scan` over stacked weights against one block after another.

    python -m benchmarks.scan_vs_unrolled [--depth N] [--channels C] [--gradient]

Prints the shortest time to compile (tracing included) and to run of both, and their ratios. The
stack is that of SDXL's spatial transformers, as `hotshot_jax.models` builds it.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from hotshot_jax.models.layers.attention import Contexts
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.unet.spatial_transformer import Transformer2DModel

Run = Callable[[Any, jax.Array], jax.Array]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures both ways, prints four times and two ratios, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scan_vs_unrolled")
    parser.add_argument("--depth", type=int, default=10, help="transformer blocks")
    parser.add_argument("--channels", type=int, default=640)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--text_channels", type=int, default=2048)
    parser.add_argument("--frames", type=int, default=2)
    parser.add_argument("--side", type=int, default=16, help="height and width in latents")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--gradient", action="store_true", help="with the gradient of the parameters"
    )
    options = parser.parse_args(arguments)

    layers = Layers.create(nnx.Rngs(0), jnp.float32, jnp.float32)
    module = Transformer2DModel(
        options.channels,
        options.heads,
        layers,
        depth=options.depth,
        text_channels=options.text_channels,
        groups=32,
    )
    numbers = np.random.default_rng(0)
    shape = (1, options.frames, options.side, options.side, options.channels)
    x = jnp.asarray(numbers.standard_normal(shape), jnp.float32)
    text = module.project_text(
        jnp.asarray(numbers.standard_normal((1, 1, 77, options.text_channels)), jnp.float32)
    )

    stack = (module, text)
    # Arrays of their own, so that the unrolled program need not cut them out of stacked ones.
    layer = [jax.tree.map(lambda leaf, i=i: leaf[i], stack_of(stack)) for i in range(options.depth)]
    ways: dict[str, tuple[Run, Any]] = {
        "scan": (scanned, stack),
        "unrolled": (unrolled, (module.norm, module.proj_in, layer, module.proj_out)),
    }
    compiling: dict[str, list[float]] = {name: [] for name in ways}
    running: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, Any] = {}
    print(f"{options.depth} blocks, {options.channels} channels, {jax.default_backend()}")
    # In turns, so that whatever else the machine does disturbs both alike.
    for _ in range(options.repeats):
        for name, (run, weights) in ways.items():
            function = gradient_of(run) if options.gradient else run
            jax.clear_caches()
            start = time.perf_counter()
            program = jax.jit(function).lower(weights, x).compile()
            compiling[name].append(time.perf_counter() - start)
            for _ in range(2):
                start = time.perf_counter()
                result = jax.block_until_ready(program(weights, x))
                running[name].append(time.perf_counter() - start)
            outputs[name] = jax.tree.leaves(result)[0]
    np.testing.assert_allclose(outputs["scan"], outputs["unrolled"], rtol=1e-3, atol=1e-3)
    for name in ways:
        shortest = f"compile {min(compiling[name]):7.2f} s   run {min(running[name]):7.3f} s"
        print(f"{name:<10} {shortest}")
    ratios = [min(times["unrolled"]) / min(times["scan"]) for times in (compiling, running)]
    print(f"unrolled / scan: compile {ratios[0]:.2f}, run {ratios[1]:.2f}")
    return 0


def stack_of(stack: tuple[Transformer2DModel, Contexts]) -> Any:
    """The blocks and what each attends to, all with a leading axis `[depth]`."""
    module, text = stack
    return module.transformer_blocks, text


def scanned(weights: Any, x: jax.Array) -> jax.Array:
    """The stack as the model runs it."""
    module, text = weights
    return module(x, text)


def unrolled(weights: Any, x: jax.Array) -> jax.Array:
    """The same, each block traced on its own."""
    norm, proj_in, layers, proj_out = weights
    batch, frames, height, width, channels = x.shape
    hidden = proj_in(norm(x).reshape(batch, frames, height * width, channels))
    for block, text in layers:
        hidden = block(hidden, text)
    return x + proj_out(hidden).reshape(x.shape)


def gradient_of(run: Run) -> Callable[..., Any]:
    """The mean square of the output, and its gradient with respect to the weights."""

    def loss(weights: Any, x: jax.Array) -> jax.Array:
        return jnp.square(run(weights, x)).mean()

    return jax.value_and_grad(loss)


if __name__ == "__main__":
    sys.exit(main())
