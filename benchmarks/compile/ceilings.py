"""What this machine can do at best, by JAX and by PyTorch: products, convolutions, copies."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.running.timing import in_turns


@dataclasses.dataclass(frozen=True)
class Load:
    """How large the arrays are.

    Attributes:
        side: of square matrices.
        images: of a 3 x 3 convolution: how many.
        image_side: their height and width.
        channels: in and out.
        copied_bytes: of a copy.
    """

    side: int
    images: int
    image_side: int
    channels: int
    copied_bytes: int

    @property
    def matmul_flops(self) -> float:
        """Operations of the product."""
        return 2.0 * self.side**3

    @property
    def conv_flops(self) -> float:
        """Operations of the convolution, the padding left out."""
        valid = (3 * self.image_side - 2) ** 2
        return 2.0 * self.images * valid * self.channels**2


SMALL = Load(1024, 4, 32, 128, 64 * 2**20)
LARGE = Load(8192, 16, 64, 320, 2**30)


def load_for(platform: str) -> Load:
    """Arrays that keep a device of this platform busy without taking a CPU minutes."""
    return SMALL if platform == "cpu" else LARGE


def jax_ceilings(dtype: Any, load: Load, repeats: int) -> dict[str, float]:
    """Operations and bytes a second with JAX on its default device."""
    key = jax.random.key(0)
    matrix = jax.random.normal(key, (load.side, load.side), dtype)
    images = jax.random.normal(
        key, (load.images, load.image_side, load.image_side, load.channels), dtype
    )
    kernel = jax.random.normal(key, (3, 3, load.channels, load.channels), dtype)
    copied = jnp.ones(load.copied_bytes // 4, jnp.float32)

    def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            images, kernel, (1, 1), "SAME", dimension_numbers=layout
        )

    programs: dict[str, tuple[Callable[..., jax.Array], tuple[jax.Array, ...]]] = {
        "matmul": (jnp.matmul, (matrix, matrix)),
        "conv": (convolve, (images, kernel)),
        "copy": (lambda x: x + 1, (copied,)),
    }

    def runner(
        function: Callable[..., jax.Array], arguments: tuple[jax.Array, ...]
    ) -> Callable[[], Any]:
        program = jax.jit(function).lower(*arguments).compile()
        return lambda: jax.block_until_ready(program(*arguments))

    return _rates({name: runner(*each) for name, each in programs.items()}, load, repeats)


def torch_ceilings(device: str, dtype: str, load: Load, repeats: int) -> dict[str, float]:
    """The same with PyTorch.

    Args:
        device: PyTorch's name.
        dtype: PyTorch's name.
        load: what is computed.
        repeats: timed runs.
    """
    import torch

    kind = getattr(torch, dtype)
    matrix = torch.randn(load.side, load.side, dtype=kind, device=device)
    images = torch.randn(
        load.images, load.channels, load.image_side, load.image_side, dtype=kind, device=device
    )
    kernel = torch.randn(load.channels, load.channels, 3, 3, dtype=kind, device=device)
    copied = torch.ones(load.copied_bytes // 4, device=device)
    ways = {
        "matmul": lambda: matrix @ matrix,
        "conv": lambda: torch.nn.functional.conv2d(images, kernel, padding=1),
        "copy": lambda: copied + 1,
    }

    def runner(way: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> None:
            way()
            if device != "cpu":
                torch.cuda.synchronize()

        return run

    with torch.no_grad():
        return _rates({name: runner(way) for name, way in ways.items()}, load, repeats)


def _rates(ways: dict[str, Callable[[], Any]], load: Load, repeats: int) -> dict[str, float]:
    timings = in_turns(ways, repeats)
    return {
        "matmul_flops_per_second": load.matmul_flops / timings["matmul"].median,
        "conv_flops_per_second": load.conv_flops / timings["conv"].median,
        # Read and written.
        "copied_bytes_per_second": 2 * load.copied_bytes / timings["copy"].median,
    }
