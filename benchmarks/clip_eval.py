"""How well loops close, long clips hold together and travel arrives, on the built-in model.

    python -m benchmarks.clip_eval                       # all of it, 20 to 200 clips of a kind
    python -m benchmarks.clip_eval loops --count 20
    python -m benchmarks.clip_eval --results FILE --resume

`loops`: eight frames of what spins or stands still, closed; beside the same clips unclosed, and
those played back and forth. `long`: 64 frames in windows of eight; beside windows that do not
overlap, and clips of eight frames. `travel`: from red to blue over 24 frames in windows of eight
and in one of 24; beside windows that do not overlap, and clips that stay red. `first`: a drawn
first frame is given; beside that frame held still and changed. `between`: frames between those of
a drawn clip; beside linear blending. `extend`: eight frames behind a drawn clip; beside its last
frame held still and changed.

Prompts are held out from training, seeds are fixed, and frames are measured as they leave the
model, before a palette is chosen. Every clip's measures are appended to a file as soon as it is
made; with `--resume` what is there is not made again, also for another `--count`.
"""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from benchmarks.running.results_file import Record, ResultsFile
from benchmarks.toy.clip_tasks import ClipTask, Figure, Keys, Way, Windows, clip_tasks
from benchmarks.toy.shape_clips import (
    DEFAULTS,
    add_model_flags,
    call_arguments,
    folder_to_save,
    load_pipeline,
)
from benchmarks.toy.start_tasks import start_tasks
from hotshot_jax.builtin import NAME as BUILTIN_NAME
from hotshot_jax.choices import CONTEXT_FUSES, INITIAL_NOISES
from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import use_device
from hotshot_jax.cli.run import Parser, run
from hotshot_jax.errors import UsageError
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.media.write import write_video
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline

PROGRAM = "clip_eval"
TASKS = (*clip_tasks(Windows()), *start_tasks())
_FRAME_MS = 125


@dataclasses.dataclass(frozen=True)
class _Job:
    """A clip to make, in one way."""

    task: str
    way: str
    keys: Keys
    seed: int

    def key(self, way: str | None = None) -> tuple[str, ...]:
        """What tells its record, or that of a clip that comes of it, from others."""
        return (self.task, way or self.way, json.dumps(_stored_keys(self.keys)), str(self.seed))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: evaluate(arguments))


def evaluate(arguments: Sequence[str] | None = None) -> None:
    """Makes and measures the clips that are not in the file yet, and prints the tables.

    Raises:
        UsageError: the arguments cannot be met.
        HotshotError: the model cannot be loaded or run.
    """
    given = _parser().parse_args(arguments)
    if given.count is not None and given.count < 1:
        raise UsageError(f"--count is {given.count}; expected at least 1.")
    wrong = [name for name in given.tasks if name not in TASKS]
    if wrong:
        raise UsageError(f"there is no task {wrong[0]!r}; expected {', '.join(TASKS)}.")
    windows = Windows(8, given.context_overlap, given.context_fuse, given.initial_noise)
    known = clip_tasks(windows) | start_tasks()
    tasks = {name: task for name, task in known.items() if name in (given.tasks or TASKS)}
    folder = folder_to_save(given)
    results = ResultsFile(Path(given.results), _settings(given, windows), given.resume)
    device = use_device(given.device)
    begin = time.monotonic()
    with compilation_cache(chosen_folder(given.compilation_cache)):
        made = _fill(given, tasks, results, folder)
    found = {name: _records(results, _jobs(given, name, task)) for name, task in tasks.items()}
    figures = {name: task.figures(found[name]) for name, task in tasks.items()}
    for name, lines in figures.items():
        print(f"{table(name, found[name], lines)}\n")
    print(f"{made} clips made in {time.monotonic() - begin:.0f} s on {device}; {results.path}")
    if given.json:
        print(json.dumps(_report(given, windows, found, figures)))


def table(task: str, records: Mapping[str, Sequence[Record]], figures: Sequence[Figure]) -> str:
    """Figures of a task, a line each, with a column for each way to make the clips."""
    ways = list(records)
    rows = [["", *ways, "wanted", ""]]
    for figure in figures:
        cells = [_cell(figure, way) for way in ways]
        verdict = "" if figure.holds is None else "holds" if figure.holds else "FAILS"
        rows.append([figure.name, *cells, figure.bound, verdict])
    rows.append(["clips", *(str(len(records[way])) for way in ways), "", ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if number else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([task, *lines])


def _cell(figure: Figure, way: str) -> str:
    if way not in figure.values:
        return "-"
    value = figure.values[way]
    return f"{100 * value:.1f} %" if figure.percent else f"{value:.3f}"


def _fill(
    given: argparse.Namespace,
    tasks: Mapping[str, ClipTask],
    results: ResultsFile,
    folder: Path | None,
) -> int:
    """Makes what the file lacks, and gives the number of clips that were made."""
    known = {_record_key(record) for record in results.records}
    missing: dict[tuple[str, str], list[_Job]] = {}
    for name, task in tasks.items():
        for job in _jobs(given, name, task):
            wanted = {job.key(), *(job.key(each) for each in task.ways[job.way].also)}
            if not wanted <= known:
                missing.setdefault((name, job.way), []).append(job)
    total = sum(map(len, missing.values()))
    if not total:
        return 0
    pipeline = load_pipeline(given, given.pretrained_path)
    with tqdm(total=total, unit="clip", file=sys.stderr, dynamic_ncols=True) as bar:
        for (name, way_name), jobs in missing.items():
            task, way = tasks[name], tasks[name].ways[way_name]
            bar.set_description(f"{name}, {way_name}", refresh=False)
            for job, frames in _clips(given, pipeline, way, jobs):
                clips = {way_name: way.finish(job.keys, frames)}
                clips |= {name: also(job.keys, frames) for name, also in way.also.items()}
                for each, clip in clips.items():
                    if job.key(each) in known:
                        continue
                    measured = task.record(job.keys, way, clip)
                    results.append(
                        {
                            "task": name,
                            "way": each,
                            "prompt": _stored_keys(job.keys),
                            "seed": job.seed,
                            **measured,
                        }
                    )
                    if folder is not None:
                        _save(folder / name / each.replace(" ", "_"), job, clip)
                bar.update(1)
    return total


def _clips(
    given: argparse.Namespace, pipeline: HotshotXLPipeline, way: Way, jobs: Sequence[_Job]
) -> Iterator[tuple[_Job, np.ndarray]]:
    call = call_arguments(given, pipeline) | {"video_length": way.frames} | dict(way.call)
    for first in range(0, len(jobs), way.batch):
        batch = list(jobs[first : first + way.batch])
        # The last batch is filled up, since another size would be another program to compile.
        filled = batch + [batch[-1]] * (way.batch - len(batch))
        if way.start is not None:
            call["start"] = way.start(batch[0].keys, call["width"])
        videos = pipeline(
            [_prompt(job.keys, way) for job in filled],
            seed=[job.seed for job in filled],
            **call,
        ).videos
        for job, video in zip(batch, np.asarray(videos), strict=False):
            yield job, to_uint8(video)


def _prompt(keys: Keys, way: Way) -> Any:
    return keys[0] if way.first_key_alone or len(keys) == 1 else dict(keys)


def _jobs(given: argparse.Namespace, name: str, task: ClipTask) -> list[_Job]:
    prompts = task.chosen(task.count if given.count is None else given.count)
    return [
        _Job(name, way, keys, given.seed + number)
        for way in task.ways
        for number, keys in enumerate(prompts)
    ]


def _records(results: ResultsFile, jobs: Sequence[_Job]) -> dict[str, list[Record]]:
    """Those of the jobs and of what comes of them, by way."""
    numbers = {job.key()[2:] for job in jobs}
    found: dict[str, list[Record]] = {job.way: [] for job in jobs}
    for record in results.records:
        key = _record_key(record)
        if key[0] == jobs[0].task and key[2:] in numbers:
            found.setdefault(key[1], []).append(record)
    return found


def _record_key(record: Record) -> tuple[str, ...]:
    return (record["task"], record["way"], json.dumps(record["prompt"]), str(record["seed"]))


def _stored_keys(keys: Keys) -> list[list[Any]]:
    return [[frame, prompt] for frame, prompt in keys.items()]


def _save(folder: Path, job: _Job, clip: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_video(
        folder / f"{job.seed:03d}.gif",
        clip,
        _FRAME_MS * len(clip),
        {"prompt": json.dumps(_stored_keys(job.keys)), "seed": str(job.seed)},
        overwrite=True,
    )


def _settings(given: argparse.Namespace, windows: Windows) -> dict[str, Any]:
    names = (
        "size", "steps", "scheduler", "guidance_scale", "guidance_rescale", "negative_prompt",
        "precision",
    )  # fmt: skip
    return {
        "model": given.pretrained_path or BUILTIN_NAME,
        **{name: getattr(given, name) for name in names},
        **dataclasses.asdict(windows),
    }


def _report(
    given: argparse.Namespace,
    windows: Windows,
    found: Mapping[str, Mapping[str, Sequence[Record]]],
    figures: Mapping[str, Sequence[Figure]],
) -> dict[str, Any]:
    return {
        "settings": _settings(given, windows),
        "tasks": {
            name: {
                "clips": {way: len(records) for way, records in found[name].items()},
                "figures": [dataclasses.asdict(figure) for figure in lines],
            }
            for name, lines in figures.items()
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=f"python -m benchmarks.{PROGRAM}",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("tasks", nargs="*", metavar="TASK", help=f"of {', '.join(TASKS)} (default: all)")
    counts = "200 loops, 20 long, 40 travel, 60 of the others"
    add("--count", type=int, help=f"clips of each way (default: {counts})")
    add("--results", metavar="FILE", default="clip_eval.jsonl", help="default: clip_eval.jsonl")
    add("--resume", action="store_true", help="go on with what the file holds")
    add("--save", metavar="DIR", help="keep GIFs as DIR/TASK/WAY/SEED.gif")
    add("--overwrite", action="store_true", help="write into a folder that is not empty")
    windows = parser.add_argument_group("windows")
    windows.add_argument("--context_overlap", type=int, default=4, help="default: 4")
    windows.add_argument("--context_fuse", choices=CONTEXT_FUSES, default="pyramid")
    windows.add_argument("--initial_noise", choices=INITIAL_NOISES, default="independent")
    add_model_flags(parser)
    parser.set_defaults(video_length=DEFAULTS.video_length)
    return parser


if __name__ == "__main__":
    sys.exit(main())
