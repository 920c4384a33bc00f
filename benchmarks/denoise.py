"""How long one pass of the UNet takes: here and in PyTorch, beside what the machine can do.

    python -m benchmarks.denoise --size tiny
    python -m benchmarks.denoise --size full --dtype bfloat16 --json     # on a GPU or TPU

A pass is that of one denoising step with guidance, a batch of two videos: full is 8 frames of
512 x 512. Beside the UNet with its temporal layers runs the one without them, and diffusers' UNet
of the same shape on the same number of images, eager and compiled. These two differ in two things:
here the group norms of the resnets pool over frames, and the text's keys and values are computed
once for all steps, as the pipeline does; PyTorch computes them in every step.

Rates count products and convolutions of the program as it is traced. The ceilings are large
products, a 3 x 3 convolution and a copy, by both libraries, in the same run.
"""

import argparse
import functools
import importlib.util
import json
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.compile.ceilings import jax_ceilings, load_for, torch_ceilings
from benchmarks.compile.hlo_costs import program_costs
from benchmarks.models.sized_unet import UNetSize, random_unet, torch_unet, unet_inputs, unet_size
from benchmarks.running.timing import Timing, add_timing_flags, circumstances, in_turns
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.programs import flattened

Run = Callable[[], Any]

WHOLE, SPATIAL = "hotshot-jax", "hotshot-jax, spatial"
EAGER, COMPILED = "PyTorch, spatial", "PyTorch, spatial, compiled"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and returns the exit status."""
    options = _parser().parse_args(arguments)
    device = use_device(options.device)
    with jax.default_matmul_precision("float32" if options.dtype == "float32" else None):
        report = {"device": device, **measure(options)}
    print_table(report)
    if options.json:
        print(json.dumps(report))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Times of a pass by each way, and the ceilings."""
    size, dtype = unet_size(options.size), jnp.dtype(options.dtype)
    ways: dict[str, Run] = {}
    flops: dict[str, float] = {}
    compile_seconds: dict[str, float] = {}
    for name in (WHOLE, SPATIAL):
        ways[name], flops[name], compile_seconds[name] = _ours(size, dtype, name == WHOLE)
    with_torch = options.torch and _has("torch") and _has("diffusers")
    if with_torch:
        ways[EAGER] = _theirs(size, options.dtype, compiled=False)
        flops[EAGER] = flops[SPATIAL]
        if options.torch_compile:
            ways[COMPILED] = _theirs(size, options.dtype, compiled=True)
            flops[COMPILED] = flops[SPATIAL]
    timings = in_turns(ways, options.repeats)
    load = load_for(current_platform())
    ceilings = {"JAX": jax_ceilings(dtype, load, options.repeats)}
    if with_torch:
        ceilings["PyTorch"] = torch_ceilings(_device(), options.dtype, load, options.repeats)
    return {
        "size": options.size,
        "dtype": options.dtype,
        **circumstances("jax", "jaxlib", "flax", "torch", "diffusers"),
        "passes": {
            name: _row(timing, flops[name], ceilings["JAX" if "jax" in name else "PyTorch"])
            for name, timing in timings.items()
        },
        "compile_seconds": compile_seconds,
        "ceilings": ceilings,
    }


def print_table(report: dict[str, Any]) -> None:
    """Prints the report for people."""
    print(
        f"{report['device']}, {report['size']} UNet in {report['dtype']}, "
        f"{report['cores']} cores, load {report['load_average']:.1f}, {report['versions']}"
    )
    print("| pass | median | lowest to highest | rate | of products | of convolutions |")
    print("|---|---|---|---|---|---|")
    for name, row in report["passes"].items():
        print(
            f"| {name} | {1e3 * row['median_seconds']:.1f} ms | "
            f"{1e3 * row['lowest_seconds']:.1f} to {1e3 * row['highest_seconds']:.1f} | "
            f"{row['flops_per_second'] / 1e9:.0f} GFLOP/s | {row['of_matmul_ceiling']:.2f} | "
            f"{row['of_conv_ceiling']:.2f} |"
        )
    print("\n| ceiling | products | convolutions | copies |\n|---|---|---|---|")
    for name, rates in report["ceilings"].items():
        print(
            f"| {name} | {rates['matmul_flops_per_second'] / 1e9:.0f} GFLOP/s | "
            f"{rates['conv_flops_per_second'] / 1e9:.0f} GFLOP/s | "
            f"{rates['copied_bytes_per_second'] / 1e9:.1f} GB/s |"
        )
    times = ", ".join(f"{name} {each:.1f} s" for name, each in report["compile_seconds"].items())
    print(f"\ncompiled before: {times}")


def _ours(size: UNetSize, dtype: Any, temporal: bool) -> tuple[Run, float, float]:
    """A pass, its operations, and the seconds it took to compile."""
    inputs = unet_inputs(size, dtype)
    unet = random_unet(size, dtype)
    text = jax.jit(lambda unet, text: unet.project_text(text))(unet, inputs.pop("text"))
    arrays, build = flattened(unet)

    def step(arrays: Any, text: Any, timestep: Any, inputs: dict[str, jax.Array]) -> jax.Array:
        return build(arrays)(
            inputs["sample"],
            timestep,
            text,
            inputs["pooled"],
            inputs["time_ids"],
            enable_temporal_attentions=temporal,
        )

    arguments = (arrays, text, jnp.float32(500), inputs)
    lowered = jax.jit(step).lower(*arguments)
    start = time.perf_counter()
    program = lowered.compile()
    seconds = time.perf_counter() - start
    flops = program_costs(lowered.as_text("hlo")).flops
    return lambda: jax.block_until_ready(program(*arguments)), flops, seconds


def _theirs(size: UNetSize, dtype: str, *, compiled: bool) -> Run:
    import torch

    device = _device()
    unet = torch_unet(size, dtype, device)
    called = torch.compile(unet) if compiled else unet
    images = 2 * size.frames
    kind = getattr(torch, dtype)
    random = functools.partial(torch.randn, dtype=kind, device=device)
    sample = random(images, 4, size.height, size.width)
    text = random(images, 77, size.config.cross_attention_dim)
    conditions = {
        "text_embeds": random(images, size.pooled_channels),
        "time_ids": torch.full((images, 6), 512.0, device=device),
    }

    def run() -> None:
        with torch.inference_mode():
            called(sample, 500, text, added_cond_kwargs=conditions)
        if device != "cpu":
            torch.cuda.synchronize()

    return run


def _row(timing: Timing, flops: float, ceilings: dict[str, float]) -> dict[str, Any]:
    rate = flops / timing.median
    return {
        **timing.report(),
        "flops": flops,
        "flops_per_second": rate,
        "of_matmul_ceiling": rate / ceilings["matmul_flops_per_second"],
        "of_conv_ceiling": rate / ceilings["conv_flops_per_second"],
    }


def _device() -> str:
    return "cuda" if current_platform() == "gpu" else "cpu"


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.denoise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=("tiny", "mid", "full"), default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    add_timing_flags(parser, repeats=7)
    parser.add_argument(
        "--torch_compile", action="store_true", help="also PyTorch's compiler, which takes minutes"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
