"""One attention layer as XLA writes it and as a kernel, from the TPU compiler's own figures.

    python -m benchmarks.attention_forms [v5e-1]

Compiles, for each attention of the model at full size, projections and all, and prints memory and
traffic of both forms. Needs libtpu, but no TPU. The choice that follows from it is made in
`hotshot_jax.models.layers.attention_choice`.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

from benchmarks.compile.topologies import Topology, without_tpu

# Name; images, tokens, heads and channels a head; tokens attended to, if not their own.
SHAPES = (
    ("spatial, 32 x 32 latents, 2 images", (1, 2, 1024, 10, 64), None),
    ("spatial, 32 x 32 latents, 16 images", (2, 8, 1024, 10, 64), None),
    ("spatial, 42 x 24 latents, 2 images", (1, 2, 1008, 10, 64), None),
    ("spatial, 16 x 16 latents, 2 images", (1, 2, 256, 20, 64), None),
    ("spatial, 16 x 16 latents, 16 images", (2, 8, 256, 20, 64), None),
    ("spatial, 64 x 64 latents, 2 images", (1, 2, 4096, 10, 64), None),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for each attention and form."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.attention_forms")
    parser.add_argument("topology", nargs="?", default="v5e-1")
    parser.add_argument("--gradient", action="store_true", help="with the gradient of all inputs")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of the shapes")
    options = parser.parse_args(arguments)
    without_tpu()
    topology = Topology.parse(options.topology)
    print(
        "| attention | form | temporary MiB | traffic MiB | computing us | memory us | "
        "by instruction us | compile s |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for number, (name, shape, keys) in enumerate(SHAPES):
        if options.only and number not in options.only:
            continue
        for form in ("xla", "splash"):
            print(_row(topology, name, shape, keys, form, options.gradient), flush=True)
    return 0


def _row(
    topology: Topology,
    name: str,
    shape: tuple[int, ...],
    keys: int | None,
    form: str,
    gradient: bool,
) -> str:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from benchmarks.compile.hlo_costs import program_costs
    from hotshot_jax.models.layers import attention
    from hotshot_jax.models.layers.layers import Layers

    batch, frames, tokens, heads, channels = shape
    place = jax.sharding.SingleDeviceSharding(topology.devices()[0])
    layers = Layers.create(nnx.Rngs(0), jnp.bfloat16, jnp.bfloat16)
    layer = nnx.eval_shape(lambda: attention.Attention(heads * channels, heads, layers))
    x = jax.ShapeDtypeStruct((batch, frames, tokens, heads * channels), jnp.bfloat16)

    def run(layer: Any, x: jax.Array) -> jax.Array:
        return layer(x)

    def loss(layer: Any, x: jax.Array) -> jax.Array:
        return jnp.square(run(layer, x).astype(jnp.float32)).mean()

    arguments = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), (layer, x)
    )
    start = time.process_time()
    with mock.patch.object(attention, "choose_attention", lambda *_, **__: form):
        function = jax.grad(loss, argnums=(0, 1)) if gradient else run
        compiled = jax.jit(function).lower(*arguments).compile()
    seconds = time.process_time() - start
    memory = compiled.memory_analysis()
    assert memory is not None
    costs = program_costs(compiled.as_text() or "")
    chip = topology.chip
    cells = [
        name,
        form,
        f"{memory.temp_size_in_bytes / 2**20:.1f}",
        f"{costs.hbm_bytes / 2**20:.1f}",
        f"{1e6 * costs.mxu_flops / chip.flops:.0f}",
        f"{1e6 * costs.hbm_bytes / chip.hbm_bandwidth:.0f}",
        f"{1e6 * costs.seconds(chip.flops, chip.hbm_bandwidth):.0f}",
        f"{seconds:.1f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    sys.exit(main())
