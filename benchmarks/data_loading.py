"""How fast clips are loaded, beside how fast the same cores decode them; and opening many.

    python -m benchmarks.data_loading                       # clips of 512 x 512
    python -m benchmarks.data_loading --samples 1000000     # time to the first batch, and memory

The rate of the loader is that of whole batches, read, decoded and stacked, no model. The raw rate
is that of Pillow decoding the same pictures in as many threads, from memory, dropping the pixels.
Both are measured by turns, several times over.
"""

import argparse
import io
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hotshot_jax.cli.run import Parser, run
from hotshot_jax.data.left_out import LeftOut
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.open_data import open_data
from hotshot_jax.data.origins import ClipRecord

FRAMES = 8
TURNS = 5
# Widths and heights that spread over all seven buckets.
SIZES = ((320, 768), (384, 672), (416, 608), (512, 512), (608, 416), (672, 384), (768, 320))


def main(arguments: Sequence[str] | None = None) -> int:
    return run("data_loading", lambda: measure(arguments))


def measure(arguments: Sequence[str] | None = None) -> None:
    given = _parser().parse_args(arguments)
    if given.first_batch is not None:
        print(json.dumps(_first_batch(given.first_batch)))
        return
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        found = (
            _opening(Path(scratch), given.samples)
            if given.samples
            else _rates(Path(scratch), given.clips, given.size, given.threads, given.kind)
        )
    print(json.dumps(found) if given.json else "\n".join(f"{k}: {v}" for k, v in found.items()))


def _rates(scratch: Path, clips: int, size: int, threads: int, kind: str) -> dict[str, Any]:
    pictures = [_photograph(seed, size) for seed in range(clips * FRAMES)]
    root = scratch / "folders"
    for clip in range(clips):
        folder = root / f"sample_{clip}"
        folder.mkdir(parents=True)
        (folder / "prompt.txt").write_text(f"clip {clip}")
        for frame in range(FRAMES):
            (folder / f"{frame}.jpg").write_bytes(pictures[clip * FRAMES + frame])
    if kind == "records":
        from hotshot_jax.data.origins import FolderOrigin
        from hotshot_jax.data.tfds_builder import build_clips

        build_clips(FolderOrigin(root), scratch / "records")
        root = scratch / "records"
    data = open_data(root)
    config = LoaderConfig(batch_size=4, resolution=size, aspect_ratio="1.00", threads=threads)
    raw, loaded = [], []
    with ThreadPoolExecutor(threads) as pool, Loader(data.source, config) as loader:
        next(loader)
        for _ in range(TURNS):
            begin = time.perf_counter()
            list(pool.map(_decode, pictures))
            raw.append(clips / (time.perf_counter() - begin))
            # A fresh position, so that nothing was read ahead while the other was measured.
            loader.set_state(loader.get_state())
            batches = clips // config.batch_size
            begin = time.perf_counter()
            for _ in range(batches):
                next(loader)
            loaded.append(batches * config.batch_size / (time.perf_counter() - begin))
    ratios = [here / there for here, there in zip(loaded, raw, strict=True)]
    return {
        "clips": f"{clips} {kind} of {FRAMES} JPEGs, {size}x{size}, {threads} threads",
        "raw_decode_clips_per_second": round(statistics.median(raw), 2),
        "loader_clips_per_second": round(statistics.median(loaded), 2),
        "loader_over_raw": round(statistics.median(ratios), 3),
        "loader_over_raw_range": [round(min(ratios), 3), round(max(ratios), 3)],
    }


def _photograph(seed: int, size: int) -> bytes:
    """A picture with the detail of a photograph: smooth forms under some grain."""
    rng = np.random.default_rng(seed)
    forms = Image.fromarray(rng.integers(0, 256, (size // 32 + 2, size // 32 + 2, 3), np.uint8))
    pixels = np.asarray(forms.resize((size, size), Image.Resampling.BICUBIC)).astype(np.int16)
    pixels = pixels + rng.normal(0, 4, pixels.shape).astype(np.int16)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "jpeg", quality=90)
    return file.getvalue()


def _decode(picture: bytes) -> None:
    with Image.open(io.BytesIO(picture)) as image:
        np.asarray(image)


@dataclass(frozen=True)
class _SmallClips:
    """Many clips of two tiny pictures that say they are of seven sizes."""

    samples: int

    def items(self) -> Sequence[str]:
        return [str(number) for number in range(self.samples)]

    def left_out(self) -> tuple[LeftOut, ...]:
        return ()

    def clips(self, item: str) -> list[ClipRecord]:
        width, height = SIZES[int(item) % len(SIZES)]
        return [ClipRecord(item, f"clip {item}", (_TINY, _TINY), width, height)]


def _tiny() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "teal").save(file, "png")
    return file.getvalue()


_TINY = _tiny()


def _opening(scratch: Path, samples: int) -> dict[str, Any]:
    from hotshot_jax.data.tfds_builder import build_clips

    found: dict[str, Any] = {}
    for count in sorted({min(10_000, samples), samples}):
        root = scratch / str(count)
        begin = time.perf_counter()
        build_clips(_SmallClips(count), root)
        built = time.perf_counter() - begin
        command = [sys.executable, "-m", "benchmarks.data_loading", "--first_batch", str(root)]
        measured = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found[f"{count}_samples"] = {"build_seconds": round(built, 1), **json.loads(measured)}
    return found


def _first_batch(root: str) -> dict[str, float]:
    begin = time.perf_counter()
    data = open_data(root, frames=2)
    opened = time.perf_counter() - begin
    config = LoaderConfig(batch_size=8, frames=2, resolution=64, threads=2)
    with Loader(data.source, config) as loader:
        next(loader)
        first = time.perf_counter() - begin
        for _ in range(200):
            next(loader)
    return {
        "open_seconds": round(opened, 2),
        "first_batch_seconds": round(first, 2),
        "memory_mebibytes": round(_own_memory() / 2**20, 1),
    }


def _own_memory() -> int:
    """Bytes of memory that belong to this process alone, without mapped files (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.data_loading", description=__doc__.split("\n")[0])
    parser.add_argument("--clips", type=int, default=48, help="clips to load")
    parser.add_argument("--size", type=int, default=512, help="their side in pixels")
    parser.add_argument("--threads", type=int, default=2, help="for the loader and for decoding")
    parser.add_argument("--kind", choices=("folders", "records"), default="records")
    parser.add_argument("--samples", type=int, help="open a data set of so many small samples")
    parser.add_argument("--scratch", help="folder for what is built and removed again")
    parser.add_argument("--first_batch", metavar="DIR", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    return parser


if __name__ == "__main__":
    sys.exit(main())
