"""Compares this project with numbers that the PyTorch reference computed.

    python -m benchmarks.parity [--golden DIR] [--case NAME ...] [--json]

Exit status: 0 if all comparisons hold, 1 if one fails, 2 for wrong arguments.
"""

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax

from benchmarks.parity_cases.case import Case, Result, Verdict, read_cases
from benchmarks.parity_cases.kinds import run_case, runs_pipeline
from hotshot_jax.errors import HotshotError

DEFAULT_GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
_HEADER = f"{'case':<28} {'what':<44} {'error':>9} {'bound':>9}  verdict"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the cases, prints the table, and returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.parity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "--golden", type=Path, default=DEFAULT_GOLDEN, help="folder with cases/ and models/"
    )
    parser.add_argument("--case", nargs="+", default=[], metavar="NAME", help="run only these")
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    options = parser.parse_args(arguments)
    try:
        cases = read_cases(options.golden, options.case)
    except HotshotError as error:
        print(error, file=sys.stderr)
        return error.exit_status

    start = time.perf_counter()
    print(_HEADER, flush=True)
    rows = []
    for case, results in _run(cases):
        for result in results:
            rows.append((case.name, result))
            print(_line(case.name, result), flush=True)
    failed = any(result.verdict.fails for _, result in rows)
    counts = Counter(result.verdict for _, result in rows)
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
    seconds = time.perf_counter() - start
    print(f"{len(cases)} cases, {len(rows)} comparisons in {seconds:.0f} s: {summary}")
    if options.json:
        print(_json(rows, failed, seconds))
    return 1 if failed else 0


def _run(cases: Sequence[Case]) -> Iterator[tuple[Case, list[Result]]]:
    """Runs the cases in two threads, since most of the time goes into compiling on one core.

    Pipelines have one thread and everything else the other: they are about equally long, and what
    is shared within each of them is used by one case at a time.
    """
    with ThreadPoolExecutor(1) as pipelines, ThreadPoolExecutor(1) as modules:
        running = [
            (case, (pipelines if runs_pipeline(case) else modules).submit(_results, case))
            for case in cases
        ]
        for case, results in running:
            yield case, results.result()


def _results(case: Case) -> list[Result]:
    """All results of a case, with what goes wrong on the way as the last one."""
    results = []
    try:
        # The bounds are for float32, which accelerators give in matrix products only when asked.
        with jax.default_matmul_precision("highest"):
            for result in run_case(case):
                results.append(result)
    # One broken case must not keep the others from being listed.
    except Exception as error:
        if not isinstance(error, HotshotError):
            traceback.print_exc()
        note = f"{type(error).__name__}: {error}"
        results.append(Result("(rest of the case)", Verdict.ERROR, note=note))
    return results


def _line(case: str, result: Result) -> str:
    error = "" if result.error is None else f"{result.error:.2e}"
    bound = "" if result.bound is None else "exact" if result.bound == 0 else f"{result.bound:.1e}"
    if result.absolute and result.bound:
        bound += " abs"
    note = f"  ({result.note})" if result.note else ""
    return f"{case:<28} {result.what:<44} {error:>9} {bound:>9}  {result.verdict}{note}"


def _json(rows: list[tuple[str, Result]], failed: bool, seconds: float) -> str:
    results = []
    for case, result in rows:
        # NaN and infinity are not JSON.
        error = result.error
        finite = error is None or abs(error) < float("inf")
        results.append(
            {"case": case, **dataclasses.asdict(result), "error": error if finite else str(error)}
        )
    return json.dumps({"passed": not failed, "seconds": round(seconds, 1), "results": results})


if __name__ == "__main__":
    sys.exit(main())
