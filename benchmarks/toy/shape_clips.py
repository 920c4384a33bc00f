"""Clips of coloured shapes that a model makes: how they are made, their files, and their marks."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.toy.shape_scores import Scores
from benchmarks.toy.shapes_evaluator import measure, read_clip
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import parse_lora
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.progress import Advance

NONE = "none"
DEFAULTS = InferSettings()


@dataclasses.dataclass(frozen=True)
class Task:
    """One clip to make.

    Attributes:
        prompt: what the model is told.
        seed: of its noise.
        shows: a prompt that says all that the clip should show, where that is more.
    """

    prompt: str
    seed: int
    shows: str | None = None


def spread(prompts: Sequence[str], count: int) -> list[str]:
    """So many of the prompts, at even distances; past their number, all of them several times."""
    return [prompts[index * len(prompts) // count] for index in range(count)]


def add_flags(parser: argparse.ArgumentParser, *, count: int) -> None:
    """Adds the flags that say which model makes how many clips, how, and what is kept of them."""
    add = parser.add_argument
    add("--count", type=int, default=count, help=f"number of clips (default: {count})")
    add("--save", metavar="DIR", help="keep the GIFs as DIR/NNN.gif, with DIR/manifest.jsonl")
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    add("--video_length", type=int, default=DEFAULTS.video_length, help="frames (default: 8)")
    add_model_flags(parser)


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say which model makes clips, and how."""
    add = parser.add_argument
    add("--pretrained_path", metavar="PATH", help="checkpoint (default: the built-in model)")
    add("--seed", type=int, default=0, help="of the first clip; one more for each (default: 0)")
    add("--json", action="store_true", help="end standard output with one line of JSON")
    add("--size", type=int, help="side in pixels (default: the model's own)")
    add("--steps", type=int, default=DEFAULTS.steps, help="denoising steps (default: 30)")
    add("--scheduler", default=DEFAULTS.scheduler, help=f"default: {DEFAULTS.scheduler}")
    add("--guidance_scale", type=float, default=DEFAULTS.guidance_scale, help="default: 5")
    add("--guidance_rescale", type=float, default=DEFAULTS.guidance_rescale, help="default: 0")
    add("--negative_prompt", help="default: none at all, what the model was trained to drop")
    add("--precision", default=DEFAULTS.precision, help=f"default: {DEFAULTS.precision}")
    add("--device", default="auto", help="auto, cpu, gpu or tpu")
    add("--compilation_cache", metavar="DIR", help="as in infer.py; 'none' keeps none")


def folder_to_save(given: argparse.Namespace) -> Path | None:
    """The folder of `--save`, if it was given.

    Raises:
        UsageError: it is a file, or holds something.
    """
    if given.save is None:
        return None
    folder = Path(given.save)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--save {folder} is a file; name a folder.")
    if not given.overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--save {folder} is not empty; name another, or give --overwrite.")
    return folder


def load_pipeline(
    given: argparse.Namespace,
    path: str | None,
    *,
    loras: Sequence[str] = (),
    controlnets: Sequence[str] = (),
) -> HotshotXLPipeline:
    """Loads a checkpoint, by default the built-in one.

    Raises:
        HotshotError: it cannot be loaded.
    """
    return HotshotXLPipeline.from_pretrained(
        str(builtin_checkpoint()) if path is None else path,
        precision=given.precision,
        scheduler=given.scheduler,
        loras=[parse_lora(argument) for argument in loras],
        controlnets=controlnets,
        progress=_FewLines(),
    )


def call_arguments(given: argparse.Namespace, pipeline: HotshotXLPipeline) -> dict[str, Any]:
    """How the pipeline is called, but for prompts and seeds: as on the clips it was trained on."""
    size = pipeline.native_size if given.size is None else given.size
    return {
        "negative_prompt": given.negative_prompt,
        "height": size,
        "width": size,
        "video_length": given.video_length,
        "num_inference_steps": given.steps,
        "guidance_scale": given.guidance_scale,
        "guidance_rescale": given.guidance_rescale,
        "original_size": (size, size),
        "target_size": (size, size),
    }


def measure_clips(
    folder: Path,
    clips: Iterable[tuple[Task, np.ndarray]],
    count: int,
    model: str,
    scores: Sequence[Scores],
    new_colours: Collection[str] = (),
) -> None:
    """Writes clips and their manifest to a folder, and adds what the files show to scores.

    Args:
        folder: made if it is not there.
        clips: what was to be made, and what was: `[frames, height, width, 3]` from 0 to 1.
        count: how many there will be.
        model: its name, for the metadata.
        scores: each takes all clips.
        new_colours: see `measure`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "manifest.jsonl").open("w", buffering=1) as manifest,
        tqdm(total=count, unit="clip", file=sys.stderr, dynamic_ncols=True) as bar,
    ):
        for number, (task, video) in enumerate(clips):
            name = f"{number:03d}.gif"
            line = {"file": name, "prompt": task.prompt, "seed": task.seed}
            if task.shows is not None:
                line["shows"] = task.shows
            write_video(
                folder / name,
                to_uint8(video),
                DEFAULTS.video_duration,
                {"prompt": task.prompt, "seed": str(task.seed), "model": model},
                overwrite=True,
            )
            manifest.write(json.dumps(line) + "\n")
            found = measure(read_clip(folder / name), new_colours)
            for each in scores:
                each.add(task.shows or task.prompt, found)
            shares = {name: f"{share:.0%}" for name, share in scores[0].shares.items()}
            bar.set_postfix(shares, refresh=False)
            bar.update(1)


class _FewLines(TerminalProgress):
    """Tells of loading and compiling; one bar over all clips stands for the rest."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        if name == "loading":
            with super().stage(name, total, unit) as advance:
                yield advance
        else:
            yield lambda units: None
