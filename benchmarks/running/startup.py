"""How long a command takes until its first step, here or by turns with another checkout.

    python -m benchmarks.running.startup
    python -m benchmarks.running.startup --before ../former --repeats 5
    python -m benchmarks.running.startup train --before ../former

A run is `infer.py` or `train.py` on the built-in model, in a process of its own: until its first
denoising step is about to begin, or its first update is in `metrics.jsonl`. `warm` finds its
programs in the compilation cache, `cold` finds none. Processor time is that of all its threads.
Needs Linux.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).parents[2]
_TICKS = os.sysconf("SC_CLK_TCK")
_FIRST_STEP = b"denoising :"
_POLL = 0.01
_TRAINING = (
    "--pretrained_model_name_or_path hotshot_jax/builtin/checkpoint --max_train_steps 2 "
    "--data_dir shapes:train?length=8&seed=0&size=128 --resolution 128 --train_batch_size 1 "
    "--test_prompts= --report_to none --save_n_steps 0"
).split()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and prints a table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.running.startup",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", nargs="?", default="infer", choices=("infer", "train"))
    parser.add_argument("--before", type=Path, metavar="CHECKOUT", help="an earlier state, beside")
    parser.add_argument("--repeats", type=int, default=5, help="of each (default: 5)")
    parser.add_argument("--cold_repeats", type=int, default=2, help="without a cache (default: 2)")
    given = parser.parse_args(arguments)
    checkouts = {"now": _HERE} | ({"before": given.before.resolve()} if given.before else {})
    print("median seconds to the first step    processor  clock")
    with tempfile.TemporaryDirectory() as folder:
        for state, repeats in (("cold", given.cold_repeats), ("warm", given.repeats)):
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in checkouts}
            for turn in range(repeats):
                for name, checkout in checkouts.items():
                    cache = f"{folder}/{name}{turn if state == 'cold' and turn else ''}"
                    times[name].append(seconds_to_first_step(given.command, checkout, cache))
            medians = {
                name: [statistics.median(column) for column in zip(*each, strict=True)]
                for name, each in times.items()
            }
            for name, each in medians.items():
                print(f"{state + ', ' + name:<34}{each[0]:>10.2f}{each[1]:>7.2f}")
            if "before" in medians:
                ratios = [now / was for now, was in zip(*medians.values(), strict=True)]
                print(f"{state + ', now / before':<34}{ratios[0]:>10.2f}{ratios[1]:>7.2f}")
    return 0


def seconds_to_first_step(name: str, checkout: Path, cache: str) -> tuple[float, float]:
    """Processor time and time by the clock of one run, until its first step.

    Args:
        name: "infer" or "train".
        checkout: whose command is run.
        cache: its compilation cache.
    """
    environment = os.environ | {"PYTHONPATH": str(checkout)}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    with tempfile.TemporaryDirectory() as folder:
        arguments = {
            "infer": ["--steps", "2", "--output", f"{folder}/a.gif"],
            "train": [*_TRAINING, "--output_dir", folder],
        }[name]
        command = [sys.executable, f"{name}.py", *arguments, "--compilation_cache", cache]
        begin = time.monotonic()
        with subprocess.Popen(
            command, cwd=checkout, env=environment,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stderr is not None
            os.set_blocking(process.stderr.fileno(), False)
            shown, metrics = b"", Path(folder, "metrics.jsonl")
            while not (
                _FIRST_STEP in shown
                if name == "infer"
                else metrics.exists() and metrics.stat().st_size
            ):
                shown += process.stderr.read() or b""
                if process.poll() is not None:
                    raise SystemExit(f"{name}.py made no step:\n{shown.decode()}")
                time.sleep(_POLL)
            clock = time.monotonic() - begin
            # utime and stime are the 14th and 15th field; the 2nd may hold blanks.
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
            processor = (int(fields[11]) + int(fields[12])) / _TICKS
            os.set_blocking(process.stderr.fileno(), True)
            process.stderr.read()
    return processor, clock


if __name__ == "__main__":
    sys.exit(main())
