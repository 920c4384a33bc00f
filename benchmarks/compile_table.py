"""Makes the tables of compiled programs in docs/performance.md.

    python -m benchmarks.compile_table [--meshes] [--shapes] [--systems] [--training]
    python -m benchmarks.compile_table --results results.jsonl --most 10
    python -m benchmarks.compile_table --systems --csv > docs/compiled_systems.csv

Prints Markdown, or everything as CSV. With `--results`, what the file holds is not compiled again,
and what is compiled is added to it at once: all tables take an hour of processor time, which need
not be spent in one go. A result counts for the versions of JAX and libtpu that made it. `--most 0`
compiles nothing.
"""

import argparse
import csv
import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.compile.topologies import GIB, Topology, without_tpu
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION, TRAINED_RESOLUTION

SYSTEMS = ("v4-8", "v5e-1", "v5e-4", "v5e-8", "v5e-16", "v5p-8", "v6e-1", "v6e-8")
SIZES = tuple(SIZES_BY_RESOLUTION[TRAINED_RESOLUTION].values())
MESHES = ("frames=8", "frames=4,tensor=2", "data=2,frames=4")
# Compiling takes a third of the time, FLOPs and communication are the same, memory nearly so.
EFFORT = "O1"
# Another number for other rules by which figures are modelled: earlier results do not count then.
_ACCOUNTING = 2

Row = tuple[str, str, str, str, dict[str, Any]]
"""Title, topology, task, mesh, and what differs from 8 frames of 512 x 512."""

_COLUMNS = (
    "program",
    "mesh",
    "weights GiB",
    "peak GiB",
    "fits",
    "TFLOP",
    "of ideal",
    "communication",
    "roofline ms",
    "by instruction ms",
)
# What a page shows.
_SHOWN = ("program", "mesh", "peak GiB", "TFLOP", "of ideal", "communication", "by instruction ms")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the tables that were asked for, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.compile_table",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    tables: dict[str, list[Row]] = {
        "meshes": [(f"v5e-8, mesh {mesh}", "v5e-8", "infer", mesh, {}) for mesh in MESHES],
        "shapes": [_infer("v5e-8", *size) for size in SIZES],
        "systems": [
            *(_infer(system, *size) for system in SYSTEMS for size in SIZES),
            *((f"{system}, decoding", system, "decode", "auto", {}) for system in SYSTEMS),
        ],
        "training": [
            ("v5e-8, temporal layers", "v5e-8", "train", "auto", {}),
            ("v5p-8, whole UNet", "v5p-8", "train", "auto", {"trained": "unet"}),
        ],
    }
    for table in tables:
        parser.add_argument(f"--{table}", action="store_true")
    parser.add_argument("--csv", action="store_true", help="all columns, as CSV")
    parser.add_argument("--results", type=Path, help="file of results, one a line, that grows")
    parser.add_argument("--most", type=int, help="programs to compile, at most (default: all)")
    options = vars(parser.parse_args(arguments))
    as_csv = options.pop("csv")
    without_tpu()
    compiler = _Compiler(options.pop("results"), options.pop("most"))
    for table, rows in tables.items():
        if options[table] or not any(options.values()):
            _print_table(rows, compiler, as_csv)
    if compiler.left_out:
        print(f"{compiler.left_out} rows are not compiled yet.", file=sys.stderr)
    return 0


class _Compiler:
    """Compiles what is not in the file of results.

    Args:
        results: the file; None for none.
        most: programs to compile; None for any number.

    Attributes:
        left_out: programs that would have been one too many.
    """

    def __init__(self, results: Path | None, most: int | None):
        self.left_out = 0
        self._results = results
        self._most = most
        self._versions = {name: metadata.version(name) for name in ("jax", "libtpu")}
        self._known: dict[str, Any] = {}
        if results is not None and results.exists():
            for line in results.read_text().splitlines():
                entry = json.loads(line)
                self._known[_key(entry["program"])] = entry["report"]

    def report(self, row: Row) -> dict[str, Any] | None:
        """The report on a row's program, or None if it is one too many.

        Raises:
            HotshotError: it cannot be compiled.
        """
        from benchmarks.compile.abstract_arrays import Size
        from benchmarks.compile.report import compile_program, report_json

        _, system, task, mesh, changes = row
        program = {
            "system": system,
            "task": task,
            "mesh": mesh,
            **changes,
            "effort": EFFORT,
            "accounting": _ACCOUNTING,
            **self._versions,
        }
        known = self._known.get(_key(program))
        if known is not None:
            return known
        if self._most is not None and self._most <= 0:
            self.left_out += 1
            return None
        size = dataclasses.replace(Size("full", 512, 512, frames=8, videos=0), **changes)
        report = json.loads(
            report_json(compile_program(Topology.parse(system), task, mesh, size, effort=EFFORT))
        )
        if self._most is not None:
            self._most -= 1
        if self._results is not None:
            with self._results.open("a") as opened:
                opened.write(json.dumps({"program": program, "report": report}) + "\n")
        return report


def _key(program: dict[str, Any]) -> str:
    return json.dumps(program, sort_keys=True)


def _infer(system: str, width: int, height: int) -> Row:
    changes = {} if (width, height) == (512, 512) else _shape(width, height)
    return f"{system}, {width} x {height}", system, "infer", "auto", changes


def _shape(width: int, height: int) -> dict[str, Any]:
    return {"width": width, "height": height}


def _print_table(rows: Iterable[Row], compiler: _Compiler, as_csv: bool) -> None:
    columns = _COLUMNS if as_csv else _SHOWN
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if as_csv:
        writer.writerow(columns)
    else:
        print(f"\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        try:
            report = compiler.report(row)
        except HotshotError as error:
            print(f"{row[0]}: {error}", file=sys.stderr)
            continue
        if report is None:
            continue
        cells = [_cells(row[0], report)[column] for column in columns]
        if as_csv:
            writer.writerow(cells)
        else:
            print(f"| {' | '.join(cells)} |")
        sys.stdout.flush()


def _cells(title: str, report: dict[str, Any]) -> dict[str, str]:
    computed = report["flops_per_device"] > 0
    ideal = report["flops_per_device"] / report["ideal_flops_per_device"]
    return {
        "program": title,
        "mesh": report["mesh"],
        "weights GiB": f"{report['parameter_bytes'] / GIB:.2f}",
        "peak GiB": f"{report['peak_bytes'] / GIB:.2f}",
        "fits": "yes" if report["fits"] else "no",
        "TFLOP": f"{report['flops_per_device'] / 1e12:.2f}" if computed else "",
        "of ideal": f"{ideal:.3f}" if computed else "",
        "communication": "; ".join(
            f"{kind} {found['count']} x, {found['bytes'] / 2**20:.1f} MiB"
            for kind, found in sorted(report["collectives"].items())
        ),
        "roofline ms": f"{1e3 * report['roofline_seconds']:.1f}" if computed else "",
        "by instruction ms": f"{1e3 * report['summed_seconds']:.1f}" if computed else "",
    }


if __name__ == "__main__":
    sys.exit(main())
