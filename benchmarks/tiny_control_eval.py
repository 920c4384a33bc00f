"""How often a clip that follows the edges of another has that one's shape and motion.

    python -m benchmarks.tiny_control_eval      # the built-in model and its ControlNet, 100 clips
    python -m benchmarks.tiny_control_eval --pretrained_path DIR --controlnet DIR --save clips

The clips to follow are drawn for prompts that no stage of training saw and written as GIFs; their
edges are what `infer.py --control_type canny --gif` makes of such a file. The prompt names colour
and background and nothing else, so shape and motion can come from the edges alone. What was made is
written as GIFs too, and measured from those files by `benchmarks.toy.shapes_evaluator`. Beside it
stand the clips that were followed, measured likewise.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.toy.shape_clips import (
    DEFAULTS,
    Task,
    add_flags,
    call_arguments,
    folder_to_save,
    load_pipeline,
    measure_clips,
    spread,
)
from benchmarks.toy.shape_scores import Scores, table
from benchmarks.toy.shapes_evaluator import measure, read_clip
from hotshot_jax.builtin import CONDITIONING_SCALE, NAME as BUILTIN_NAME, builtin_controlnets
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.infer.control import control_inputs, plan_control
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.conditioning.control.windows import DEFAULT_SCALE, control_windows
from hotshot_jax.conditioning.key_frames import extremes
from hotshot_jax.data.shapes import parse_prompt, render, split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

PROGRAM = "tiny_control_eval"
_KIND = "canny"
_MADE, _FOLLOWED = "what was made", "what it followed"
_FROM_EDGES, _FROM_PROMPT = ("shape", "motion"), ("colour", "background")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: evaluate(arguments))


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Makes, writes and measures the clips, and prints the tables.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: a model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    if given.count < 1:
        raise UsageError(f"--count is {given.count}; expected at least 1.")
    scale = _scale(given)
    prompts = spread(split_prompts("held_out"), given.count)
    tasks = [
        Task(parse_prompt(prompt).brief, given.seed + number, shows=prompt)
        for number, prompt in enumerate(prompts)
    ]
    kept = folder_to_save(given)
    device = use_device(given.device)
    edges, text, followed = Scores(_FROM_EDGES), Scores(_FROM_PROMPT), Scores(_FROM_EDGES)
    with (
        compilation_cache(chosen_folder(given.compilation_cache)),
        tempfile.TemporaryDirectory() as scratch,
    ):
        begin = time.monotonic()
        folder = kept or Path(scratch)
        pipeline = load_pipeline(given, given.pretrained_path, controlnets=[_controlnet(given)])
        clips = _clips(given, pipeline, tasks, folder, followed)
        measure_clips(folder, clips, len(tasks), pipeline.components.name, [edges, text])
        seconds = time.monotonic() - begin
    print(table({_MADE: edges, _FOLLOWED: followed}))
    print(f"\nfrom the prompt:\n{table({_MADE: text})}")
    print(f"\n{len(tasks)} clips in {seconds:.0f} s, loading included, on {device}")
    if given.json:
        report: dict[str, Any] = {
            "model": given.pretrained_path or BUILTIN_NAME,
            "controlnet": given.controlnet or BUILTIN_NAME,
            **edges.report(),
            "prompt": text.report(),
            "followed": followed.report(),
            "seeds": [tasks[0].seed, tasks[-1].seed],
            "settings": {
                "scheduler": given.scheduler,
                "precision": given.precision,
                "controlnet_conditioning_scale": scale,
                **call_arguments(given, pipeline),
            },
            "device": device,
            "seconds": round(seconds, 1),
        }
        print(json.dumps(report))


def _controlnet(given: argparse.Namespace) -> str:
    return str(builtin_controlnets()[_KIND]) if given.controlnet is None else given.controlnet


def _scale(given: argparse.Namespace) -> float:
    scale = given.controlnet_conditioning_scale
    (window,) = control_windows(
        1,
        scales=() if scale is None else (scale,),
        default_scale=CONDITIONING_SCALE if given.controlnet is None else DEFAULT_SCALE,
    )
    return extremes(window.scale)[1]


def _clips(
    given: argparse.Namespace,
    pipeline: HotshotXLPipeline,
    tasks: Sequence[Task],
    folder: Path,
    followed: Scores,
) -> Iterator[tuple[Task, np.ndarray]]:
    """Draws a clip, writes it to `clips` and its edges to `edges`, and makes one that follows it.

    One at a time: all prompts of a call follow the same clip.
    """
    call = call_arguments(given, pipeline)
    for number, task in enumerate(tasks):
        assert task.shows is not None
        source, control = (folder / kind / f"{number:03d}.gif" for kind in ("clips", "edges"))
        drawn = render(task.shows, task.seed, call["width"], given.video_length)
        source.parent.mkdir(parents=True, exist_ok=True)
        write_video(source, drawn, DEFAULTS.video_duration, {}, overwrite=True)
        followed.add(task.shows, measure(read_clip(source)))
        made_of_it = _control(given, source, call["width"])
        control.parent.mkdir(parents=True, exist_ok=True)
        write_video(control, made_of_it.frames, DEFAULTS.video_duration, {}, overwrite=True)
        videos = pipeline([task.prompt], seed=[task.seed], controls=[made_of_it], **call).videos
        yield task, np.asarray(videos)[0]


def _control(given: argparse.Namespace, source: Path, size: int) -> ControlInput:
    """What `infer.py` makes of a clip."""
    settings = InferSettings(
        pretrained_path=given.pretrained_path,
        controlnet=(_controlnet(given),),
        control_type=(_KIND,),
        gif=(str(source),),
        controlnet_conditioning_scale=(_scale(given),),
        width=size,
        height=size,
        video_length=given.video_length,
    )
    (control,) = control_inputs(plan_control(settings), settings)
    return control


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_flags(parser, count=100)
    add = parser.add_argument
    add("--controlnet", metavar="PATH", help="ControlNet (default: the built-in model's)")
    add(
        "--controlnet_conditioning_scale", type=float, help="its strength (default: as in infer.py)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
