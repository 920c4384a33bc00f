"""How often the clips of a model show what their prompts say: colour, shape, motion, background.

    python -m benchmarks.tiny_eval                              # the built-in model, 200 clips
    python -m benchmarks.tiny_eval --pretrained_path DIR --save clips --json
    python -m benchmarks.tiny_eval --video_length 1             # single images; motion is left out
    python -m benchmarks.tiny_eval --lora runs/cyan/export --split cyan_held_out --before none

Clips are made for prompts that no stage of training saw, each from a seed of its own, written as
GIFs and measured from those files by `benchmarks.toy.shapes_evaluator`. Beside the model stands the
same model "before the temporal stage": by default its own UNet with the last layer of every
temporal transformer set to zero. That is the state in which temporal layers start, and the temporal
stage changes nothing else, so it is the model that the stage began with, frame by frame the same;
`--before PATH` measures another checkpoint in its place, `--before none` leaves it out.
"""

import argparse
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

from benchmarks.toy.shape_clips import (
    DEFAULTS,
    NONE,
    Task,
    add_flags,
    call_arguments,
    folder_to_save,
    load_pipeline,
    measure_clips,
    spread,
)
from benchmarks.toy.shape_scores import ATTRIBUTES, Scores, table
from benchmarks.toy.shapes_evaluator import NEW_COLOUR_WORDS, PROMPT
from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.infer.outputs import read_prompts
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.tensors.rules import TEMPORAL, flat_parameters
from hotshot_jax.data.shapes import SPLITS, split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

PROGRAM = "tiny_eval"
_INERT = "inert"
_AFTER, _BEFORE = "the model", "before the temporal stage"


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
    folder = folder_to_save(given)
    device = use_device(given.device)
    with (
        compilation_cache(chosen_folder(given.compilation_cache)),
        tempfile.TemporaryDirectory() as scratch,
    ):
        begin = time.monotonic()
        pipeline = load_pipeline(given, given.pretrained_path, loras=given.lora)
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
                **call_arguments(given, pipeline),
            },
            "device": device,
            "seconds": round(seconds, 1),
        }
        print(json.dumps(report))


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
        prompts = read_prompts(dataclasses.replace(DEFAULTS, prompts_file=given.prompts_file))
        for prompt in prompts:
            if PROMPT.fullmatch(" ".join(prompt.split())) is None:
                raise UsageError(
                    f"--prompts_file {given.prompts_file}: cannot tell what {prompt!r} asks for; "
                    "expected 'a COLOUR SHAPE MOTION on a BACKGROUND background'."
                )
    else:
        prompts = spread(split_prompts(given.split), given.count)
    return [Task(prompt, given.seed + number) for number, prompt in enumerate(prompts)]


def _before(given: argparse.Namespace, pipeline: HotshotXLPipeline) -> HotshotXLPipeline | None:
    # A single image does without temporal layers anyway.
    if given.before == NONE or (given.before == _INERT and given.video_length == 1):
        return None
    if given.before == _INERT:
        return without_temporal_layers(pipeline)
    return load_pipeline(given, given.before)


def _measured(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, tasks: Sequence[Task], folder: Path
) -> Scores:
    """Makes the clips, writes them and their manifest to a folder, and measures the files."""
    attributes = [a for a in ATTRIBUTES if a != "motion" or given.video_length > 1]
    scores = Scores(attributes)
    colours = new_colours([task.prompt for task in tasks], given.lora)
    clips = _clips(given, pipeline, tasks)
    measure_clips(folder, clips, len(tasks), pipeline.components.name, [scores], colours)
    return scores


def _clips(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, tasks: Sequence[Task]
) -> Iterator[tuple[Task, np.ndarray]]:
    call = call_arguments(given, pipeline)
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
    add_flags(parser, count=200)
    add = parser.add_argument
    add(
        "--before",
        metavar="PATH",
        default=_INERT,
        help=f"what to set beside it: a checkpoint, '{_INERT}' (its temporal layers do nothing; "
        f"the default) or '{NONE}'",
    )
    add(
        "--lora",
        metavar="PATH[:SCALE]",
        action="append",
        default=[],
        help="LoRA to merge into the model, as in infer.py; may be repeated",
    )
    add("--prompts_file", metavar="FILE", help="prompts, one a line (default: held-out ones)")
    add("--split", choices=SPLITS, default="held_out", help="where they come from")
    add("--batch_size", type=int, default=10, help="clips made at once (default: 10)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
