"""Times of things that run on a device: medians with their spread, compiling never among them."""

import argparse
import dataclasses
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

LEAST_REPEATS = 5


@dataclasses.dataclass(frozen=True)
class Timing:
    """Seconds of equal runs.

    Attributes:
        seconds: of each run.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return statistics.median(self.seconds)

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "median_seconds": self.median,
            "lowest_seconds": min(self.seconds),
            "highest_seconds": max(self.seconds),
            "repeats": len(self.seconds),
        }


def add_timing_flags(parser: argparse.ArgumentParser, *, repeats: int) -> None:
    """Adds what benchmarks beside PyTorch have in common: `--device`, `--repeats` and so on.

    Args:
        parser: the command's.
        repeats: runs that are timed unless the user says otherwise.
    """
    add = parser.add_argument
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto")
    add("--repeats", type=repeats_of, default=repeats, help=f"timed runs (default: {repeats})")
    add("--torch", action=argparse.BooleanOptionalAction, default=True, help="PyTorch beside it")
    add("--json", action="store_true", help="end with one line of JSON")


def repeats_of(text: str) -> int:
    """A number of timed runs.

    Raises:
        ValueError: there are too few for a median and a spread.
    """
    count = int(text)
    if count < LEAST_REPEATS:
        raise argparse.ArgumentTypeError(f"expected at least {LEAST_REPEATS}")
    return count


def in_turns(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, Timing]:
    """Times several ways, a run of each by turns: what else the machine does disturbs all alike.

    Args:
        ways: do the whole work before they return. Each is run once before it is timed.
        repeats: timed runs of each.
    """
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    return {name: Timing(tuple(times)) for name, times in seconds.items()}


def circumstances(*packages: str) -> dict[str, Any]:
    """What timings depend on besides the program: commit, versions, cores and load."""
    finished = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    installed = {each.metadata["Name"] for each in metadata.distributions()}
    return {
        "commit": finished.stdout.strip() or None,
        "versions": {name: metadata.version(name) for name in packages if name in installed},
        "cores": len(os.sched_getaffinity(0)),
        "load_average": os.getloadavg()[0],
    }
