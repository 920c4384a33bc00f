"""How long a person waits: for the page, for the first clip of all, and for every later one."""

import time
from pathlib import Path
from typing import Any

from benchmarks.serve.asking import Server, server
from benchmarks.serve.throughput import body


def first_clip(folder: Path, steps: int, later: int = 3) -> dict[str, Any]:
    """Measures a server that has compiled nothing yet.

    Seconds are those of the clock; processor seconds, those that the server worked on all cores
    together, tell the same on a machine that is busy otherwise.

    Args:
        folder: that is empty; of jobs and programs.
        steps: of denoising.
        later: clips after the first.
    """
    flags = ["--compilation_cache", str(folder / "programs")]
    start = time.monotonic()
    with server(folder / "jobs", flags) as running:
        status, page = running.ask("/")
        if status != 200 or b"hotshot-jax" not in page:
            raise RuntimeError(f"The page is not there: {status}.")
        told: dict[str, Any] = {
            "seconds_to_page": round(time.monotonic() - start, 2),
            "processor_seconds_to_page": round(running.processor_seconds, 2),
        }
        clips = [_made(running, number, steps) for number in range(1 + later)]
    for name, (seconds, processor) in {"cold": clips[0], "warm": min(clips[1:])}.items():
        told[f"seconds_{name}"] = round(seconds, 2)
        told[f"processor_seconds_{name}"] = round(processor, 2)
    return told


def _made(running: Server, number: int, steps: int) -> tuple[float, float]:
    start, worked = time.monotonic(), running.processor_seconds
    running.made(body(number, steps))
    return time.monotonic() - start, running.processor_seconds - worked
