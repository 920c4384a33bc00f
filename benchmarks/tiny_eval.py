"""How often the clips of a model show what their prompts say: colour, shape, motion, background.

    python -m benchmarks.tiny_eval                              # the built-in model, 200 clips
    python -m benchmarks.tiny_eval --pretrained_path DIR --save clips --json
    python -m benchmarks.tiny_eval --video_length 1             # single images; motion is left out
    python -m benchmarks.tiny_eval --lora runs/cyan/export --split cyan_held_out --before none

Clips are made for prompts that no stage of training saw, each from a seed of its own, written as
GIFs and measured from those files by `benchmarks.shapes_evaluator`. Beside the model stands the
same model "before the temporal stage": by default its own UNet with the last layer of every
temporal transformer set to zero. That is the state in which temporal layers start, and the temporal
stage changes nothing else, so it is the model that the stage began with, frame by frame the same;
`--before PATH` measures another checkpoint in its place, `--before none` leaves it out.
"""

import argparse
import contextlib
import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.shape_scores import ATTRIBUTES, Scores, table
from benchmarks.shapes_evaluator import NEW_COLOUR_WORDS, PROMPT, measure, read_clip
from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.compilation_cache import compilation_cache, default_folder
from hotshot_jax.cli.devices import use_device
from hotshot_jax.cli.outputs import read_prompts
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.cli.settings import InferSettings
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.rules import flat_parameters
from hotshot_jax.data.shapes import SPLITS, split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import parse_lora
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.pipelines.progress import Advance
from hotshot_jax.training.selection import TEMPORAL

PROGRAM = "tiny_eval"
_INERT, _NONE = "inert", "none"
_AFTER, _BEFORE = "the model", "before the temporal stage"
_DEFAULTS = InferSettings()


@dataclasses.dataclass(frozen=True)
class Task:
    """One clip to make."""

    prompt: str
    seed: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: evaluate(arguments))


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Makes, writes and measures the clips, and prints the tables.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: the model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    tasks = _tasks(given)
    folder = None if given.save is None else _empty_folder(Path(given.save), given.overwrite)
    device = use_device(given.device)
    with (
        compilation_cache(_cache_folder(given.compilation_cache)),
        tempfile.TemporaryDirectory() as scratch,
    ):
        begin = time.monotonic()
        pipeline = _pipeline(given, given.pretrained_path, given.lora)
        for lora in pipeline.loras:
            print(f"{PROGRAM}: LoRA {lora}", file=sys.stderr)
        columns = {_AFTER: _measured(given, pipeline, tasks, folder or Path(scratch) / "after")}
        seconds = time.monotonic() - begin
        before = _before(given, pipeline)
        if before is not None:
            columns[_BEFORE] = _measured(given, before, tasks, Path(scratch) / "before")
    print(table(columns))
    print(f"\n{len(tasks)} clips of {_AFTER} in {seconds:.0f} s, loading included, on {device}")
    if given.json:
        report: dict[str, Any] = {
            "model": given.pretrained_path or BUILTIN_NAME,
            "loras": given.lora,
            **columns[_AFTER].report(),
            "before": columns[_BEFORE].report() if _BEFORE in columns else None,
            "seeds": [tasks[0].seed, tasks[-1].seed],
            "settings": {
                "scheduler": given.scheduler,
                "precision": given.precision,
                **_call(given, pipeline),
            },
            "device": device,
            "seconds": round(seconds, 1),
        }
        print(json.dumps(report))


def spread(prompts: Sequence[str], count: int) -> list[str]:
    """So many of the prompts, at even distances; past their number, all of them several times."""
    return [prompts[index * len(prompts) // count] for index in range(count)]


def new_colours(prompts: Sequence[str], loras: Sequence[str]) -> list[str]:
    """Colours that shapes may have besides those of the data set.

    These are the ones that prompts ask for. A LoRA may bring any of them, asked for or not.
    """
    words = {word for prompt in prompts for word in prompt.split()}
    return [colour for colour in NEW_COLOUR_WORDS if loras or colour in words]


def without_temporal_layers(pipeline: HotshotXLPipeline) -> HotshotXLPipeline:
    """A pipeline whose temporal layers add nothing, like new ones; the rest is shared."""
    unet = pipeline.components.unet
    values = {
        path: jnp.zeros_like(leaf) if TEMPORAL in path and path[-2] == "proj_out" else leaf
        for path, leaf in flat_parameters(unet).items()
    }
    return HotshotXLPipeline(
        dataclasses.replace(pipeline.components, unet=with_parameters(unet, values)),
        precision=pipeline.precision,
        scheduler=type(pipeline.scheduler).__name__,
        decode_frames=pipeline.decode_frames,
        progress=pipeline.runtime.progress,
    )


def _tasks(given: argparse.Namespace) -> list[Task]:
    for name in ("count", "batch_size"):
        if getattr(given, name) < 1:
            raise UsageError(f"--{name} is {getattr(given, name)}; expected at least 1.")
    if given.prompts_file is not None:
        prompts = read_prompts(dataclasses.replace(_DEFAULTS, prompts_file=given.prompts_file))
        for prompt in prompts:
            if PROMPT.fullmatch(" ".join(prompt.split())) is None:
                raise UsageError(
                    f"--prompts_file {given.prompts_file}: cannot tell what {prompt!r} asks for; "
                    "expected 'a COLOUR SHAPE MOTION on a BACKGROUND background'."
                )
    else:
        prompts = spread(split_prompts(given.split), given.count)
    return [Task(prompt, given.seed + number) for number, prompt in enumerate(prompts)]


def _cache_folder(given: str | None) -> Path | None:
    if given is None:
        return default_folder()
    return None if given == _NONE else Path(given)


def _empty_folder(folder: Path, overwrite: bool) -> Path:
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--save {folder} is a file; name a folder.")
    if not overwrite and folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"--save {folder} is not empty; name another, or give --overwrite.")
    return folder


class _FewLines(TerminalProgress):
    """Tells of loading and compiling; one bar over all clips stands for the rest."""

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        if name == "loading":
            with super().stage(name, total, unit) as advance:
                yield advance
        else:
            yield lambda units: None


def _pipeline(
    given: argparse.Namespace, path: str | None, loras: Sequence[str] = ()
) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(
        str(builtin_checkpoint(default_folder().parent)) if path is None else path,
        precision=given.precision,
        scheduler=given.scheduler,
        loras=[parse_lora(argument) for argument in loras],
        progress=_FewLines(),
    )


def _before(given: argparse.Namespace, pipeline: HotshotXLPipeline) -> HotshotXLPipeline | None:
    # A single image does without temporal layers anyway.
    if given.before == _NONE or (given.before == _INERT and given.video_length == 1):
        return None
    if given.before == _INERT:
        return without_temporal_layers(pipeline)
    return _pipeline(given, given.before)


def _call(given: argparse.Namespace, pipeline: HotshotXLPipeline) -> dict[str, Any]:
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


def _measured(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, tasks: Sequence[Task], folder: Path
) -> Scores:
    """Makes the clips, writes them and their manifest to a folder, and measures the files."""
    attributes = [a for a in ATTRIBUTES if a != "motion" or given.video_length > 1]
    scores = Scores(attributes)
    colours = new_colours([task.prompt for task in tasks], given.lora)
    folder.mkdir(parents=True, exist_ok=True)
    with (
        (folder / "manifest.jsonl").open("w", buffering=1) as manifest,
        tqdm(total=len(tasks), unit="clip", file=sys.stderr, dynamic_ncols=True) as bar,
    ):
        for number, (task, video) in enumerate(_clips(given, pipeline, tasks)):
            name = f"{number:03d}.gif"
            line = {"file": name, "prompt": task.prompt, "seed": task.seed}
            write_video(
                folder / name,
                to_uint8(video),
                _DEFAULTS.video_duration,
                {"prompt": task.prompt, "seed": str(task.seed), "model": pipeline.components.name},
                overwrite=True,
            )
            manifest.write(json.dumps(line) + "\n")
            scores.add(task.prompt, measure(read_clip(folder / name), colours))
            bar.set_postfix({n: f"{s:.0%}" for n, s in scores.shares.items()}, refresh=False)
            bar.update(1)
    return scores


def _clips(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, tasks: Sequence[Task]
) -> Iterator[tuple[Task, np.ndarray]]:
    call = _call(given, pipeline)
    for first in range(0, len(tasks), given.batch_size):
        batch = list(tasks[first : first + given.batch_size])
        # The last batch is filled up, since another size would be another program to compile.
        filled = batch + [batch[-1]] * (min(given.batch_size, len(tasks)) - len(batch))
        videos = pipeline(
            [task.prompt for task in filled], seed=[task.seed for task in filled], **call
        ).videos
        yield from zip(batch, np.asarray(videos), strict=False)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m benchmarks.tiny_eval",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--pretrained_path", metavar="PATH", help="checkpoint (default: the built-in model)")
    add(
        "--before",
        metavar="PATH",
        default=_INERT,
        help=f"what to set beside it: a checkpoint, '{_INERT}' (its temporal layers do nothing; "
        f"the default) or '{_NONE}'",
    )
    add(
        "--lora",
        metavar="PATH[:SCALE]",
        action="append",
        default=[],
        help="LoRA to merge into the model, as in infer.py; may be repeated",
    )
    add("--prompts_file", metavar="FILE", help="prompts, one a line (default: held-out ones)")
    add("--count", type=int, default=200, help="number of prompts without a file (default: 200)")
    add("--split", choices=SPLITS, default="held_out", help="where they come from")
    add("--seed", type=int, default=0, help="of the first clip; one more for each (default: 0)")
    add("--save", metavar="DIR", help="keep the GIFs as DIR/NNN.gif, with DIR/manifest.jsonl")
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    add("--json", action="store_true", help="end standard output with one line of JSON")
    add("--size", type=int, help="side in pixels (default: the model's own)")
    add("--video_length", type=int, default=_DEFAULTS.video_length, help="frames (default: 8)")
    add("--steps", type=int, default=_DEFAULTS.steps, help="denoising steps (default: 30)")
    add("--scheduler", default=_DEFAULTS.scheduler, help=f"default: {_DEFAULTS.scheduler}")
    add("--guidance_scale", type=float, default=_DEFAULTS.guidance_scale, help="default: 5")
    add("--guidance_rescale", type=float, default=_DEFAULTS.guidance_rescale, help="default: 0")
    add("--negative_prompt", help="default: none at all, what the model was trained to drop")
    add("--precision", default=_DEFAULTS.precision, help=f"default: {_DEFAULTS.precision}")
    add("--batch_size", type=int, default=10, help="clips made at once (default: 10)")
    add("--device", default="auto", help="auto, cpu, gpu or tpu")
    add("--compilation_cache", metavar="DIR", help="as in infer.py; 'none' keeps none")
    return parser


if __name__ == "__main__":
    sys.exit(main())
