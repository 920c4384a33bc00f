"""What fewer passes cost in pictures: kept features and partial guidance beside plain fewer steps.

    python -m benchmarks.passes.fewer_passes        # the built-in model, 100 clips
    python -m benchmarks.passes.fewer_passes --count 20 --results FILE --resume --plot fewer.svg

Held-out prompts, fixed seeds, one after the other in every way, so that times are those of turns.
Cost is that of full size: a step on kept features is 2.4 % of a whole one
(`benchmarks.cached_step`), one without guidance half. Marks are those of `benchmarks.tiny_eval`:
colour, shape, motion and background all right. PSNR is that of the clip to the run of 30 whole
steps by the same scheduler.

Every clip's measures are appended to a file as soon as it is made; with `--resume` what is there is
not made again, also when ways are added.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
from tqdm import tqdm

from benchmarks.running.results_file import Record, ResultsFile
from benchmarks.toy.shape_clips import (
    DEFAULTS,
    Task,
    add_model_flags,
    call_arguments,
    load_pipeline,
    spread,
)
from benchmarks.toy.shapes_evaluator import measure, score
from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.data.shapes import split_prompts
from hotshot_jax.errors import UsageError
from hotshot_jax.measure.comparison import compare_frames
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.sampling.step_plan import (
    ALL_STEPS,
    CacheInterval,
    StepPlan,
    check_cache_interval,
    guided_steps,
)

PROGRAM = "fewer_passes"
# Of a whole step at full size, 8 frames of 512 x 512: 0.68 of 28.73 TFLOP.
KEPT_SHARE = 0.0237
STEPS = 30
# Decibels that stand for equal clips.
_SAME = 99.0
# Of the plot, in pixels.
_LEFT, _TOP, _WIDE, _DEEP, _PANEL = 48, 16, 500, 220, 280


@dataclasses.dataclass(frozen=True)
class Way:
    """How clips are made.

    Attributes:
        family: what is changed, for the plot.
        scheduler: a short name.
        steps: of denoising.
        cache_interval: see `sampling.step_plan`.
        guidance_interval: likewise.
    """

    family: str
    scheduler: str
    steps: int = STEPS
    cache_interval: CacheInterval = 1
    guidance_interval: tuple[float, float] = ALL_STEPS

    @property
    def name(self) -> str:
        """As flags say it."""
        parts = [self.scheduler, f"{self.steps} steps"]
        if self.cache_interval != 1:
            listed = self.cache_interval
            text = listed if isinstance(listed, int) else ",".join(map(str, listed))
            parts.append(f"cache {text}")
        if self.guidance_interval != ALL_STEPS:
            parts.append("guidance {:g}:{:g}".format(*self.guidance_interval))
        return ", ".join(parts)

    @property
    def cost(self) -> float:
        """Of a clip at full size, in whole steps with guidance."""
        guided = guided_steps(self.guidance_interval, self.steps)
        full = StepPlan.of(self.cache_interval, range(self.steps), guided.tolist()).full
        return sum(
            (1.0 if whole else KEPT_SHARE) * (1.0 if pair else 0.5)
            for whole, pair in zip(full, guided, strict=True)
        )

    @property
    def call(self) -> dict[str, Any]:
        """Arguments of the pipeline."""
        return {
            "num_inference_steps": self.steps,
            "cache_interval": self.cache_interval,
            "guidance_interval": self.guidance_interval,
        }


def ways(schedulers: Sequence[str], lists: Mapping[str, Sequence[Sequence[int]]]) -> list[Way]:
    """All that are compared, the whole run of each scheduler before the others of it.

    Args:
        schedulers: short names.
        lists: lists of full steps by scheduler, beside the uniform intervals.
    """
    made = []
    for scheduler in schedulers:
        made += [
            Way("plain steps", scheduler),
            *(Way("plain steps", scheduler, steps) for steps in (23, 15, 10, 7, 6)),
            *(Way("kept features", scheduler, STEPS, interval) for interval in (2, 3, 5)),
            *(
                Way("kept features, a list", scheduler, STEPS, tuple(each))
                for each in lists.get(scheduler, ())
            ),
            *(
                Way("part of guidance", scheduler, STEPS, 1, interval)
                for interval in ((0.0, 0.8), (0.0, 0.5), (0.17, 0.9))
            ),
            Way("both", scheduler, STEPS, 2, (0.0, 0.5)),
        ]
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: evaluate(arguments))


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Makes and measures the clips that are not in the file yet, and prints the table.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: the model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    if given.count < 1:
        raise UsageError(f"--count is {given.count}; expected at least 1.")
    compared = ways(given.schedulers, _lists(given))
    prompts = spread(split_prompts("held_out"), given.count)
    tasks = [Task(prompt, given.seed + number) for number, prompt in enumerate(prompts)]
    results = ResultsFile(Path(given.results), _settings(given), given.resume)
    device = use_device(given.device)
    made = 0
    if not given.report:
        with compilation_cache(chosen_folder(given.compilation_cache)):
            made = _fill(given, compared, tasks, results)
    # Ways are compared by the same clips, also in a file that is not complete.
    wanted = {(task.prompt, task.seed) for task in tasks}
    for way in compared:
        wanted &= {
            (each["prompt"], each["seed"]) for each in results.records if each["way"] == way.name
        }
    found = {
        way: [
            record
            for record in results.records
            if record["way"] == way.name and (record["prompt"], record["seed"]) in wanted
        ]
        for way in compared
    }
    print(table(found))
    print(f"\n{made} clips made on {device}; {results.path}")
    if given.plot:
        Path(given.plot).write_text(plot(found))
    if given.json:
        print(json.dumps({"settings": _settings(given), "ways": _report(found)}))


def table(found: Mapping[Way, Sequence[Record]]) -> str:
    """A line for each way: cost, time, marks, likeness."""
    lines = [
        "| way | cost in steps | time | of the whole run | all four right | PSNR to it | clips |",
        "|---|---|---|---|---|---|---|",
    ]
    whole = {way.scheduler: _median(found[way], "seconds") for way in found if way.cost == STEPS}
    for way, records in found.items():
        seconds = _median(records, "seconds")
        psnr = _median(records, "psnr")
        lines.append(
            f"| {way.name} | {way.cost:.1f} | {seconds:.2f} s | "
            f"{seconds / whole[way.scheduler]:.2f} | {_share(records):.1%} | "
            f"{'-' if way.cost == STEPS else f'{psnr:.1f} dB'} | {len(records)} |"
        )
    return "\n".join(lines)


def plot(found: Mapping[Way, Sequence[Record]]) -> str:
    """Marks and PSNR over cost as SVG: a colour for each family, a shape for each scheduler."""
    colours = ("#0072b2", "#d55e00", "#cc79a7", "#009e73", "#e69f00")
    families = dict(zip(dict.fromkeys(way.family for way in found), colours, strict=False))
    schedulers = list(dict.fromkeys(way.scheduler for way in found))
    right = {way: 100 * _share(records) for way, records in found.items()}
    like = {way: _median(found[way], "psnr") for way in found if way.cost < STEPS}
    panels = [("all four right, %", 100, right), ("PSNR to the whole run, dB", 50, like)]
    parts = []
    for number, (title, highest, values) in enumerate(panels):
        left, top = _LEFT, _TOP + number * _PANEL
        for tick in range(6):
            y = top + _DEEP * (1 - tick / 5)
            parts.append(f'<path d="M{left} {y:.1f}h{_WIDE}" stroke="#ddd"/>')
            parts.append(_text(left - 6, y + 4, highest * tick // 5, 'text-anchor="end"'))
        for cost in range(0, STEPS + 1, 5):
            across = left + _WIDE * cost / STEPS
            parts.append(_text(across, top + _DEEP + 16, cost, 'text-anchor="middle"'))
        parts.append(_text(left, top + _DEEP + 32, f"{title}, over cost in whole steps"))
        for way, value in values.items():
            x = left + _WIDE * way.cost / STEPS
            y = top + _DEEP * (1 - min(value / highest, 1))
            colour = families[way.family]
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
                if way.scheduler == schedulers[0]
                else f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8" fill="none" '
                f'stroke="{colour}" stroke-width="2"/>'
            )
    labels = list(families.items())
    for number, scheduler in enumerate(schedulers):
        labels.append((f"{'square' if number else 'dot'}: {scheduler}", "#222"))
    for number, (label, colour) in enumerate(labels):
        place = _TOP + 12 + 18 * number
        parts.append(_text(_LEFT + _WIDE + 20, place, label, f'fill="{colour}"'))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_LEFT + _WIDE + 220}" '
        f'height="{2 * _PANEL}" font-family="sans-serif" font-size="12">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _text(x: float, y: float, text: object, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(str(text))}</text>'


def _fill(
    given: argparse.Namespace, compared: Sequence[Way], tasks: Sequence[Task], results: ResultsFile
) -> int:
    """Makes what the file lacks, and gives the number of clips that were made."""
    known = {(each["way"], each["prompt"], each["seed"]) for each in results.records}
    missing = {
        task: [way for way in compared if (way.name, task.prompt, task.seed) not in known]
        for task in tasks
    }
    total = sum(map(len, missing.values()))
    if not total:
        return 0
    pipelines = _pipelines(given, compared)
    with tqdm(total=total, unit="clip", file=sys.stderr, dynamic_ncols=True) as bar:
        for task, needed in missing.items():
            for scheduler, pipeline in pipelines.items():
                ours = [way for way in needed if way.scheduler == scheduler]
                whole = None
                for way in ([Way("plain steps", scheduler)] if ours else []) + ours:
                    if whole is not None and way.cost == STEPS:
                        continue
                    clip, seconds = _clip(given, pipeline, way, task)
                    whole = clip if whole is None else whole
                    if way not in ours:
                        continue
                    marks = score(task.prompt, measure(clip))
                    record = {
                        "way": way.name,
                        "prompt": task.prompt,
                        "seed": task.seed,
                        "seconds": round(seconds, 3),
                        "all": all(marks.values()),
                        "psnr": min(_SAME, compare_frames(clip, whole).psnr),
                    }
                    results.append(record)
                    bar.update(1)
    return total


def _pipelines(given: argparse.Namespace, compared: Sequence[Way]) -> dict[str, HotshotXLPipeline]:
    """A pipeline for each scheduler, with programs compiled."""
    first = load_pipeline(given, given.pretrained_path)
    made = {}
    for scheduler in dict.fromkeys(way.scheduler for way in compared):
        made[scheduler] = HotshotXLPipeline(
            first.components, precision=first.precision, scheduler=scheduler
        )
        for way in compared:
            if way.scheduler == scheduler:
                short = dataclasses.replace(way, steps=4, cache_interval=_shortened(way))
                _clip(given, made[scheduler], short, Task(split_prompts("held_out")[0], 0))
    return made


def _shortened(way: Way) -> CacheInterval:
    """An interval with which four steps need the same programs."""
    return 1 if way.cache_interval == 1 else 2


def _clip(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, way: Way, task: Task
) -> tuple[np.ndarray, float]:
    begin = time.perf_counter()
    call = call_arguments(given, pipeline) | way.call
    videos = np.asarray(pipeline(task.prompt, seed=task.seed, **call).videos)
    return to_uint8(videos[0]), time.perf_counter() - begin


def _median(records: Sequence[Record], name: str) -> float:
    return statistics.median([each[name] for each in records]) if records else float("nan")


def _share(records: Sequence[Record]) -> float:
    return sum(each["all"] for each in records) / max(1, len(records))


def _lists(given: argparse.Namespace) -> dict[str, list[list[int]]]:
    found: dict[str, list[list[int]]] = {}
    for text in given.list:
        scheduler, colon, steps = text.partition(":")
        if not colon or scheduler not in given.schedulers:
            raise UsageError(
                f"--list {text}: expected one of the schedulers, a colon and its full steps, such "
                f"as {given.schedulers[0]}:0,5,10."
            )
        try:
            listed = [int(step) for step in steps.split(",")]
        except ValueError:
            raise UsageError(f"--list {text}: {steps} is no list of steps.") from None
        check_cache_interval(listed, STEPS)
        found.setdefault(scheduler, []).append(listed)
    return found


def _settings(given: argparse.Namespace) -> dict[str, Any]:
    names = ("size", "guidance_scale", "guidance_rescale", "negative_prompt", "precision")
    return {
        "model": given.pretrained_path or BUILTIN_NAME,
        **{name: getattr(given, name) for name in names},
    }


def _report(found: Mapping[Way, Sequence[Record]]) -> list[dict[str, Any]]:
    return [
        {
            "way": way.name,
            "cost": round(way.cost, 2),
            "seconds": _median(records, "seconds"),
            "all": round(_share(records), 4),
            "psnr": _median(records, "psnr"),
            "clips": len(records),
        }
        for way, records in found.items()
    ]


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.passes.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--count", type=int, default=100, help="clips of each way (default: 100)")
    add("--results", metavar="FILE", default=f"{PROGRAM}.jsonl", help="default: %(default)s")
    add("--resume", action="store_true", help="go on with what the file holds")
    add("--report", action="store_true", help="make nothing, show what the file holds")
    add("--plot", metavar="FILE", help="write marks over cost as SVG")
    add(
        "--list",
        action="append",
        default=[],
        metavar="SCHEDULER:STEPS",
        help="full steps of a scheduler; repeatable",
    )
    add(
        "--schedulers",
        nargs="+",
        default=["euler_ancestral", "dpmpp_2m_karras"],
        help="default: euler_ancestral dpmpp_2m_karras",
    )
    add_model_flags(parser)
    parser.set_defaults(video_length=DEFAULTS.video_length)
    return parser


if __name__ == "__main__":
    sys.exit(main())
