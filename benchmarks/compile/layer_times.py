"""Single layers of the UNet on a v5e chip: the modelled time beside that of the machine code.

    python -m benchmarks.compile.layer_times [product convolution_320 ...]

Compiles layers at their sizes in a denoising step of one clip, 8 frames of 512 x 512 with guidance,
and prints a table in microseconds. *Modelled* is `compile_for`'s sum by instruction. *Code* counts
the bundles that libtpu writes, loops multiplied out, or the cycles of the matrix units if those
take longer; it knows nothing of waiting for memory. Needs libtpu and no TPU, and a gigabyte of disk
for a moment.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.compile.machine_code import Code, dump_machine_code, take_machine_code
from benchmarks.compile.topologies import Topology, without_tpu

LAYERS = (
    "product",
    "convolution_320",
    "convolution_640",
    "feed_forward",
    "spatial_attention",
)
_SHAPES: dict[str, tuple[int, ...]] = {
    "product": (2, 8, 256, 1280),
    "convolution_320": (16, 64, 64, 320),
    "convolution_640": (16, 32, 32, 640),
    "feed_forward": (2, 8, 256, 1280),
    "spatial_attention": (2, 8, 1024, 640),
}
_SYSTEM = "v5e-1"
# Each multiplies a row of 128 with 128 columns in a cycle.
_MATRIX_UNITS = 4
_ROW_FLOPS = 2 * 128 * 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a row for each layer."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile.layer_times",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("layers", nargs="*", metavar="layer", help=", ".join(LAYERS))
    layers = parser.parse_args(arguments).layers or LAYERS
    unknown = set(layers) - set(LAYERS)
    if unknown:
        parser.error(f"unknown layer {sorted(unknown)[0]!r}; there are {', '.join(LAYERS)}")
    without_tpu()
    print(
        "| layer | shape | computing | memory | modelled | bundles | matrix units | code | "
        "code / modelled |\n|---|---|---|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as folder:
        dump_machine_code(Path(folder))
        for layer in layers:
            print(_row(layer, Path(folder)), flush=True)
    return 0


def _row(name: str, folder: Path) -> str:
    from benchmarks.compile.hlo_costs import program_costs

    topology = Topology.parse(_SYSTEM)
    chip = topology.chip
    costs = program_costs(_compile(name, topology))
    code = take_machine_code(folder)
    clock = chip.flops / (_MATRIX_UNITS * _ROW_FLOPS)
    modelled = costs.seconds(chip.flops, chip.hbm_bandwidth)
    counted = sum(each.cycles for each in code.values()) / clock
    times = [
        costs.mxu_flops / chip.flops,
        costs.hbm_bytes / chip.hbm_bandwidth,
        modelled,
        _sum(code, lambda each: each.bundles) / clock,
        _sum(code, lambda each: each.matrix_cycles) / clock,
        counted,
    ]
    cells = [
        name.replace("_", " "),
        " x ".join(map(str, _SHAPES[name])),
        *(f"{1e6 * each:.0f}" for each in times),
        f"{counted / modelled:.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _sum(code: dict[str, Code], count: Callable[[Code], int]) -> int:
    return sum(map(count, code.values()))


def _compile(name: str, topology: Topology) -> str:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx
    from jax.experimental.layout import Format, Layout
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    from hotshot_jax.models.layers.attention import Attention
    from hotshot_jax.models.layers.feed_forward import FeedForward
    from hotshot_jax.models.layers.layers import Layers

    layers = Layers.create(nnx.Rngs(0), jnp.bfloat16, jnp.bfloat16)
    build: dict[str, Callable[[], Any]] = {
        "product": lambda: layers.linear(1280, 1280),
        "convolution_320": lambda: layers.conv(320, 320, 3),
        "convolution_640": lambda: layers.conv(640, 640, 3),
        "feed_forward": lambda: FeedForward(1280, layers),
        "spatial_attention": lambda: Attention(640, 10, layers),
    }
    # The mesh tells attention what it is compiled for.
    mesh = Mesh(np.array(topology.devices()), ("data",))
    # In a step a layer reads and writes the layouts that suit it.
    layout = Format(Layout.AUTO, NamedSharding(mesh, PartitionSpec()))
    arguments = (
        nnx.eval_shape(build[name]),
        jax.ShapeDtypeStruct(_SHAPES[name], jnp.bfloat16),
    )

    def run(layer: Callable[[jax.Array], jax.Array], x: jax.Array) -> jax.Array:
        return layer(x)

    with jax.set_mesh(mesh):
        jitted = jax.jit(run, in_shardings=layout, out_shardings=layout)
        return jitted.lower(*arguments).compile().as_text() or ""


if __name__ == "__main__":
    sys.exit(main())
