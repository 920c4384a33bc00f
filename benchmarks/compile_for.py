"""Compiles a program for TPUs or GPUs that are not here, and prints what the compiler knows of it.

    python -m benchmarks.compile_for v5e-8 --task infer --mesh frames=8
    python -m benchmarks.compile_for v5e:2x4 --task train --train temporal --json
    python -m benchmarks.compile_for h100 --task infer --mesh data=1
    python -m benchmarks.compile_for h100-8 --task train

Needs the compiler that comes with `pip install "hotshot-jax[tpu]"` or `"hotshot-jax[cuda]"`, but no
TPU and no GPU. Weights are shapes.

Exit status: 0 if the program fits into the chips' memory, 1 if not, 2 for wrong arguments.
"""

import argparse
import sys
from collections.abc import Sequence

from benchmarks.compile.gpus import GPUS
from benchmarks.compile.systems import parse_system
from benchmarks.compile.topologies import names, without_tpu
from hotshot_jax.choices import VAE_PRECISIONS
from hotshot_jax.compile_effort import EFFORTS
from hotshot_jax.errors import HotshotError


def main(arguments: Sequence[str] | None = None) -> int:
    """Compiles, prints, and returns the exit status."""
    options = _parser().parse_args(arguments)
    without_tpu()
    # Only now, since they start JAX.
    from benchmarks.compile.abstract_arrays import Size
    from benchmarks.compile.report import compile_program, print_report, report_json
    from hotshot_jax.runtime.precision import VaePrecision

    try:
        topology = parse_system(options.topology, options.slices)
        size = Size(
            options.size,
            options.width,
            options.height,
            options.frames,
            options.videos or 0,
            trained=options.train,
            rematerialisation=options.remat,
            context_length=options.context_length,
            context_batch=options.context_batch,
            vae_precision=VaePrecision.named(options.vae_precision, topology.platform),
        )
        report = compile_program(topology, options.task, options.mesh, size, effort=options.effort)
    except HotshotError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    print_report(report)
    if options.json:
        print(report_json(report))
    return 0 if report.fits else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile_for",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "topology",
        help=f"{', '.join(names())}; or chips and shape, such as v5e:2x4; or GPUs: "
        f"{', '.join(GPUS)}, and with their number h100-8",
    )
    parser.add_argument("--task", choices=("infer", "decode", "train"), default="infer")
    parser.add_argument("--mesh", default="auto", help="such as data=2,frames=4 (default: auto)")
    parser.add_argument("--train", choices=("temporal", "unet"), default="temporal")
    parser.add_argument(
        "--remat",
        choices=("none", "blocks", "dots", "full"),
        default="blocks",
        help="what training computes again instead of keeping it (default: blocks)",
    )
    parser.add_argument("--size", choices=("full", "tiny"), default="full")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--height", type=int, default=512)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--context_length", type=int, help="sample in windows of so many frames")
    parser.add_argument("--context_batch", type=int, help="windows sampled at once")
    parser.add_argument(
        "--videos",
        type=int,
        help="prompts or samples in one step, over all devices (default: 1; a sample for each "
        "device that splits samples when training)",
    )
    parser.add_argument(
        "--vae_precision",
        choices=VAE_PRECISIONS,
        default="f32",
        help="of decoding (default: f32)",
    )
    parser.add_argument("--slices", type=int, default=1, help="such systems, joined by a network")
    parser.add_argument(
        "--effort",
        choices=EFFORTS,
        help="of the TPU compiler for a fast program (default: what infer.py compiles with on a "
        "TPU, O1, and O2 for training)",
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
