"""Makes the tables of compiled programs in docs/performance.md.

    python -m benchmarks.compile_table [--systems] [--shapes] [--meshes] [--training]

Prints Markdown, a row as soon as it is known. All tables take about half an hour of processor time.
"""

import argparse
import dataclasses
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.topologies import GIB, Topology, without_tpu
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION, TRAINED_RESOLUTION

SYSTEMS = ("v4-8", "v5e-1", "v5e-4", "v5e-8", "v5e-16", "v5p-8", "v6e-1", "v6e-8")
MESHES = ("frames=8", "frames=4,tensor=2", "data=2,frames=4")
# Compiling takes a tenth of the time, FLOPs and communication are the same, memory nearly so.
EFFORT = -1.0

Row = tuple[str, str, str, str, dict[str, Any]]
"""Title, topology, task, mesh, and what differs from 8 frames of 512 x 512."""

_HEADER = (
    "| program | mesh | weights | peak | fits | FLOPs | of ideal | all-to-all | all-reduce | "
    "other | modelled |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables that were asked for, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tables: dict[str, list[Row]] = {
        "systems": [row for system in SYSTEMS for row in _system(system)],
        "meshes": [(f"v5e-8, mesh {mesh}", "v5e-8", "infer", mesh, {}) for mesh in MESHES],
        "shapes": [
            (f"v5e-8, {width} x {height}", "v5e-8", "infer", "auto", _shape(width, height))
            for width, height in SIZES_BY_RESOLUTION[TRAINED_RESOLUTION].values()
        ],
        "training": [
            ("v5e-8, temporal layers", "v5e-8", "train", "auto", {}),
            ("v5p-8, whole UNet", "v5p-8", "train", "auto", {"trained": "unet"}),
        ],
    }
    for table in tables:
        parser.add_argument(f"--{table}", action="store_true")
    options = vars(parser.parse_args(arguments))
    without_tpu()
    for table, rows in tables.items():
        if options[table] or not any(options.values()):
            print(f"\n{_HEADER}", flush=True)
            for line in _lines(rows):
                print(line, flush=True)
    return 0


def _system(name: str) -> list[Row]:
    return [(f"{name}, {task}", name, task, "auto", {}) for task in ("infer", "decode")]


def _shape(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height}


def _lines(rows: Iterable[Row]) -> Iterable[str]:
    from benchmarks.abstract_arrays import Size
    from benchmarks.compile_report import compile_program

    for title, system, task, mesh, changes in rows:
        size = dataclasses.replace(Size("full", 512, 512, frames=8, videos=0), **changes)
        try:
            report = compile_program(Topology.parse(system), task, mesh, size, effort=EFFORT)
        except HotshotError as error:
            print(f"{title}: {error}", file=sys.stderr)
            continue
        yield _row(title, report)


def _row(title: str, report: Any) -> str:
    kinds = dict(report.collectives)
    shown = [kinds.pop(kind, None) for kind in ("all-to-all", "all-reduce")]
    other = ", ".join(f"{kind} {_collective(found)}" for kind, found in sorted(kinds.items()))
    ratio = report.flops_per_device / report.ideal_flops_per_device
    computed = [f"{report.flops_per_device / 1e12:.2f} T", f"{ratio:.3f}"]
    modelled = f"{1e3 * report.roofline_seconds:.1f} ms"
    if not report.flops_per_device:
        computed, modelled = ["", ""], ""
    cells = [
        title,
        report.mesh,
        f"{report.parameter_bytes / GIB:.2f}",
        f"{report.peak_bytes / GIB:.2f}",
        "yes" if report.fits else "no",
        *computed,
        *map(_collective, shown),
        other,
        modelled,
    ]
    return f"| {' | '.join(cells)} |"


def _collective(found: Any) -> str:
    if found is None:
        return ""
    largest, total = found.largest_bytes / 2**20, found.bytes / 2**20
    return f"{found.count} x, {total:.1f} MiB, largest {largest:.2f}"


if __name__ == "__main__":
    sys.exit(main())
