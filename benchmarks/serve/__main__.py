"""`python -m benchmarks.serve first`, `... throughput` and `... mixed`."""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.serve.asking import server
from benchmarks.serve.first_clip import first_clip
from benchmarks.serve.mixed_load import mixed_load
from benchmarks.serve.throughput import throughput


def main() -> None:
    """Starts a server with the built-in model, measures, and prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("first", "throughput", "mixed"))
    parser.add_argument("--clips", type=int, default=32, help="of both ways together")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--max_batch", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=10.0)
    given = parser.parse_args()
    if given.what == "first":
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps({"what": "first", **first_clip(Path(folder), given.steps)}))
        return
    flags = ["--max_batch", str(given.max_batch), "--warm", "128x128x8"]
    with tempfile.TemporaryDirectory() as folder, server(Path(folder), flags) as running:
        if given.what == "throughput":
            result = throughput(running, given.clips, given.clients, given.steps)
        else:
            result = mixed_load(running, given.minutes, given.steps)
    print(json.dumps({"what": given.what, "max_batch": given.max_batch, **result}))


if __name__ == "__main__":
    main()
