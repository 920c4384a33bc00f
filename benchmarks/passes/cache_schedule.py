"""Which steps should run the whole UNet: a list for `--cache_interval`, from what a model does.

    python -m benchmarks.passes.cache_schedule        # 10 full steps, the built-in model
    python -m benchmarks.passes.cache_schedule --full 6 15 --count 8 --json

Clips are made in full, and the features that enter the UNet's last layer are looked at in every
step: the error of step j on the features of step i is |f_j - f_i| / |f_j|, the mean over clips. Of
all lists with so many full steps the one is taken whose steps between have the least errors
together; beside it stands the uniform interval of as many. The list holds for the model, the
scheduler and the number of steps that it was made with.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from jax.experimental import io_callback

from benchmarks.toy.shape_clips import (
    DEFAULTS,
    add_model_flags,
    call_arguments,
    load_pipeline,
    spread,
)
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

PROGRAM = "cache_schedule"
Errors = npt.NDArray[np.float64]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: calibrate(arguments))


def calibrate(arguments: Sequence[str] | None = None) -> None:
    """Makes the clips and prints the lists.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: the model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    wrong = [count for count in given.full if not 1 <= count <= given.steps]
    if wrong:
        raise UsageError(f"--full is {wrong[0]}; expected 1 to {given.steps}, the steps.")
    prompts = given.prompt or spread(split_prompts("train"), given.count)
    use_device(given.device)
    with compilation_cache(chosen_folder(given.compilation_cache)):
        pipeline = load_pipeline(given, given.pretrained_path)
        call = call_arguments(given, pipeline)
        errors = feature_errors(pipeline, prompts, given.seed, call)
    chosen = {}
    for count in given.full:
        steps = best_steps(errors, count)
        even = list(range(0, given.steps, -(-given.steps // count)))
        print(
            f"{len(steps)} full steps: --cache_interval {','.join(map(str, steps))}\n"
            f"  error {total_error(errors, steps):.3f}; of every {-(-given.steps // count)}th step "
            f"({len(even)}) {total_error(errors, even):.3f}"
        )
        chosen[count] = steps
    if given.json:
        print(json.dumps({"steps": given.steps, "lists": chosen, "errors": errors.tolist()}))


def feature_errors(
    pipeline: HotshotXLPipeline, prompts: Sequence[str], seed: int, call: dict[str, Any]
) -> Errors:
    """Errors of every call's features in place of every later one's.

    Args:
        pipeline: makes the clips.
        prompts: one for each clip.
        seed: of the first clip; one more for each.
        call: further arguments of the pipeline.

    Returns:
        float64 `[calls, calls]`: by the call that the features are of, then by that which uses
        them; only what lies above the diagonal counts.
    """
    kept: list[npt.NDArray[np.float32]] = []

    def watched(predict: Any) -> Any:
        keeping = dataclasses.replace(predict, keeps_features=True)

        def call(latents: Any, step: Any, conditioning: Any, cache: Any) -> Any:
            prediction, features = keeping(latents, step, conditioning, ())
            io_callback(_keep, None, features, ordered=True)
            return prediction, cache

        return call

    def _keep(features: Any) -> None:
        kept.append(np.asarray(features, np.float32))

    watching = HotshotXLPipeline(
        pipeline.components,
        precision=pipeline.precision,
        scheduler=pipeline.scheduler,
        wrap_predictor=watched,
    )
    found = []
    for number, prompt in enumerate(prompts):
        kept.clear()
        watching(prompt, seed=seed + number, output_type="latent", **call)
        steps = np.stack(kept).reshape(len(kept), -1).astype(np.float64)
        squares = np.square(steps).sum(1)
        # |f_j - f_i|^2 without an array of all differences.
        apart = squares[:, None] + squares - 2 * steps @ steps.T
        found.append(np.sqrt(np.maximum(apart, 0) / squares))
    return np.mean(found, 0)


def total_error(errors: Errors, full: Sequence[int]) -> float:
    """Sum over the steps between of their error on the last full step's features.

    Args:
        errors: from `feature_errors`.
        full: the full steps, rising from 0.
    """
    ends = [*full[1:], len(errors)]
    return float(
        sum(errors[start, start + 1 : end].sum() for start, end in zip(full, ends, strict=True))
    )


def best_steps(errors: Errors, count: int) -> list[int]:
    """So many full steps, the first among them, with the least `total_error`.

    By the best ends for every number of full steps and every place where the last of them lies.
    """
    steps = len(errors)
    until = np.cumsum(np.triu(errors, 1), axis=1)
    # What it costs to go on from full step i up to, not with, step j.
    cost = np.concatenate([np.zeros((steps, 1)), until], axis=1)
    least = np.full((count, steps), np.inf)
    before = np.zeros((count, steps), int)
    least[0, 0] = 0.0
    for number in range(1, count):
        for step in range(number, steps):
            totals = least[number - 1, :step] + cost[:step, step]
            before[number, step] = int(np.argmin(totals))
            least[number, step] = totals[before[number, step]]
    step = int(np.argmin(least[-1] + cost[:, steps]))
    chosen = [step]
    for number in range(count - 1, 0, -1):
        step = int(before[number, step])
        chosen.append(step)
    return chosen[::-1]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.passes.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--full", type=int, nargs="+", default=[10], help="full steps (default: 10)")
    add("--count", type=int, default=4, help="clips that are looked at (default: 4)")
    add("--prompt", action="append", help="of a clip (default: some of the training's); repeatable")
    add_model_flags(parser)
    parser.set_defaults(video_length=DEFAULTS.video_length)
    return parser


if __name__ == "__main__":
    sys.exit(main())
