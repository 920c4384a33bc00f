"""What a long clip costs: its time beside that of its windows alone, and the memory it is kept in.

    python -m benchmarks.long_clips                    # both, with the built-in model
    python -m benchmarks.long_clips --only memory

Time: making a clip's latents in windows (context length 8, overlap 4), over as many plain clips of
8 frames as it has windows, by turns, compiled before; the lowest of a few runs each. Both read
their text once a clip, which few steps make too much of.

Memory: the highest resident memory while latents are decoded and written as a GIF, a process for
each length; random latents, so that every frame has all colours there are.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import numpy as np

from hotshot_jax.jobs.maker import ClipMaker
from hotshot_jax.jobs.settings import ModelSettings
from hotshot_jax.media.write import write_video
from hotshot_jax.sampling.windows import LONG_CLIP_LENGTH, ContextConfig

_PROMPT = "a red circle moving right on a black background"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.one is not None:
        print(json.dumps(_memory(options.one, options.size)))
        return 0
    if options.only != "memory":
        _time(options)
    if options.only != "time":
        for frames in options.lengths:
            command = [sys.executable, "-m", "benchmarks.long_clips", "--one", str(frames)]
            command += ["--size", str(options.size)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            loaded, peak = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{frames:5d} frames of {options.size} x {options.size}: {peak - loaded:6.1f} MiB "
                f"for decoding and writing, {peak:.1f} MiB in all"
            )
    return 0


def _time(options: argparse.Namespace) -> None:
    maker = ClipMaker.load(ModelSettings(precision="f32"))
    call = {"num_inference_steps": options.steps, "output_type": "latent"}
    size = {"height": options.size, "width": options.size}
    context = ContextConfig(LONG_CLIP_LENGTH, LONG_CLIP_LENGTH // 2)
    windows = len(context.windows(options.frames, 0))

    def long() -> None:
        made = maker.pipeline(_PROMPT, video_length=options.frames, context=context, **size, **call)
        jax.block_until_ready(made.videos)

    def plain() -> None:
        made = maker.pipeline(_PROMPT, video_length=LONG_CLIP_LENGTH, **size, **call)
        jax.block_until_ready(made.videos)

    seconds: dict[Callable[[], None], list[float]] = {long: [], plain: []}
    for run in seconds:
        run()
    for _ in range(options.repeats):
        for run, found in seconds.items():
            start = time.perf_counter()
            run()
            found.append(time.perf_counter() - start)
    whole, alone = min(seconds[long]), windows * min(seconds[plain])
    print(
        f"{options.frames} frames in {windows} windows, {options.steps} steps: {whole:.2f} s; "
        f"{windows} plain clips of {LONG_CLIP_LENGTH}: {alone:.2f} s; ratio {whole / alone:.3f}"
    )


def _memory(frames: int, size: int) -> tuple[float, float]:
    """Resident memory with the model loaded, and at its peak, in MiB."""
    maker = ClipMaker.load(ModelSettings(precision="f32"))
    factor = maker.pipeline.components.vae.config.scale_factor
    channels = maker.pipeline.components.unet.config.in_channels
    shape = (1, frames, size // factor, size // factor, channels)
    latents = np.random.default_rng(0).standard_normal(shape, np.float32)
    # Programs are compiled with a few frames, and their memory is there already.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.gif"
        for count in (LONG_CLIP_LENGTH, frames):
            if count == frames:
                loaded = _peak()
            (video,) = maker.decoded(jax.numpy.asarray(latents[:, :count]))
            write_video(path, video, 125 * count, {}, overwrite=True)
    return loaded, _peak()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.long_clips",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=("time", "memory"))
    parser.add_argument("--frames", type=int, default=64, help="of the clip that is timed")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--size", type=int, default=128, help="height and width, in pixels")
    parser.add_argument("--lengths", type=int, nargs="+", default=(64, 256), help="for memory")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
