"""How long a UNet takes from its checkpoint to the device: here and in PyTorch.

    python -m benchmarks.load --size tiny
    python -m benchmarks.load --size full --dtype bfloat16 --folder /mnt/disk --json

Writes a UNet with formula weights in PyTorch's layout, then loads it by turns: as the pipeline
does, names, shapes and layouts included; and as PyTorch does, tensor by tensor into a state dict on
the device, which is less: no model is made of it. Beside both: reading the file from memory, where
it lies after the first time, and once from the disk.
"""

import argparse
import importlib.util
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.compile.ceilings import jax_ceilings, load_for
from benchmarks.convert import seconds_to_read, write_unet
from benchmarks.running.timing import add_timing_flags, circumstances, in_turns
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.convert.formats.diffusers_folder import open_component
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.runtime.precision import current_platform

_CHUNK = 16 * 2**20


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a table, and returns the exit status."""
    options = _parser().parse_args(arguments)
    report = {"device": use_device(options.device)}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        report |= measure(options, Path(folder) / "unet")
    print_table(report)
    if options.json:
        print(json.dumps(report))
    return 0


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes the UNet and times the ways to load it."""
    dtype = jnp.dtype(options.dtype)
    file = write_unet(folder, options.size, np.dtype(dtype))
    size = file.stat().st_size
    disk = seconds_to_read(file)

    def ours() -> None:
        component = prepare_component(open_component(folder, "unet"), dtype=dtype)
        jax.block_until_ready(jax.tree.leaves(component.load()))

    def read() -> None:
        buffer = bytearray(_CHUNK)
        with file.open("rb", buffering=0) as opened:
            while opened.readinto(buffer):
                pass

    ways: dict[str, Callable[[], None]] = {"reading, from memory": read, "hotshot-jax": ours}
    if options.torch and importlib.util.find_spec("torch") is not None:
        ways["PyTorch, state dict"] = lambda: _theirs(file)
    timings = in_turns(ways, options.repeats)
    copies = jax_ceilings(dtype, load_for(current_platform()), options.repeats)
    return {
        "size": options.size,
        "dtype": options.dtype,
        **circumstances("jax", "jaxlib", "flax", "torch", "safetensors"),
        "weights_bytes": size,
        "disk_seconds": disk,
        "copied_bytes_per_second": copies["copied_bytes_per_second"],
        "ways": {
            name: {**timing.report(), "bytes_per_second": size / timing.median}
            for name, timing in timings.items()
        },
    }


def print_table(report: dict[str, Any]) -> None:
    """Prints the report for people."""
    size = report["weights_bytes"]
    print(
        f"{report['device']}, {report['size']} UNet in {report['dtype']}, {size / 2**20:.0f} MiB, "
        f"{report['cores']} cores, load {report['load_average']:.1f}, {report['versions']}"
    )
    print("| way | median | lowest to highest | rate |\n|---|---|---|---|")
    for name, row in report["ways"].items():
        print(
            f"| {name} | {row['median_seconds']:.3f} s | {row['lowest_seconds']:.3f} to "
            f"{row['highest_seconds']:.3f} | {row['bytes_per_second'] / 1e9:.2f} GB/s |"
        )
    disk = report["disk_seconds"]
    print(f"| reading, from disk, once | {disk:.3f} s | | {size / disk / 1e9:.2f} GB/s |")
    print(f"\nthe device copies {report['copied_bytes_per_second'] / 1e9:.1f} GB/s")


def _theirs(file: Path) -> None:
    import torch
    from safetensors.torch import load_file

    device = "cuda" if current_platform() == "gpu" else "cpu"
    for tensor in load_file(file, device=device).values():
        # Mapped files are read where they are first touched.
        tensor.clone()
    if device == "cuda":
        torch.cuda.synchronize()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.load",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny")
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--folder", help="where to write (default: a temporary folder)")
    add_timing_flags(parser, repeats=7)
    return parser


if __name__ == "__main__":
    sys.exit(main())
