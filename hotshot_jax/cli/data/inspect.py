"""`inspect`: what a data set holds, and what is wrong with it."""

import argparse
import json
import os
import sys
from collections import Counter
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hotshot_jax.cli.data.command import INSPECT, SHEET
from hotshot_jax.cli.data.tokens import token_counter
from hotshot_jax.cli.flags import Acts, refuse_without_effect
from hotshot_jax.cli.run import say
from hotshot_jax.data.buckets import assign_buckets, bucket_sizes, enlarged
from hotshot_jax.data.building.findings import CUT_CLIPS, LEAST_FPS, SLOW_CLIPS, Findings, signature
from hotshot_jax.data.clip_source import ClipSource, ClipTable, EncodedClip
from hotshot_jax.data.folders import FolderSource, scan_folders
from hotshot_jax.data.left_out import LeftOut
from hotshot_jax.data.mixing.data_place import parse_place
from hotshot_jax.data.open_data import OpenedData, open_data, refuse_videos
from hotshot_jax.data.records import find_data_set
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.files.printable import printable
from hotshot_jax.media.reading.one_pass import cuts, measured_changes
from hotshot_jax.media.sheet import draw_sheet, spread_indices
from hotshot_jax.media.write import write_video
from hotshot_jax.writing.places import check_local, is_inside

_EFFECTS = (
    Acts(("clips", "seed"), lambda given: given.contact_sheet != "", "without --contact_sheet"),
)


# Of a large data set, evenly spread: to decode all would take hours.
_MOST_LOOKED_AT = 2000


@dataclass(frozen=True)
class Report:
    """What a data set holds.

    Attributes:
        data_dir: as it was named.
        kind: `folders`, `records` or `shapes`.
        samples: number of samples, good and bad.
        usable: number of good ones.
        frames: how many samples have how many frames.
        sizes: the commonest frame sizes in pixels, and how many samples have them.
        buckets: samples of each aspect-ratio bucket at the resolution asked for.
        enlarged: samples that are smaller than their bucket.
        problems: one line for each reason why a sample cannot be used.
        left_out: what lies among the samples and is not read.
        looked_at: how many usable samples were looked at for the warnings.
        warnings: what training would learn wrongly.
    """

    data_dir: str
    kind: str
    samples: int
    usable: int
    frames: dict[str, int]
    sizes: dict[str, int]
    buckets: dict[str, int]
    enlarged: int
    problems: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    looked_at: int
    warnings: tuple[LeftOut, ...]


def inspect(given: argparse.Namespace, flags: Collection[str]) -> None:
    """Prints a report and draws a contact sheet.

    Args:
        given: the arguments.
        flags: names of those that stand on the command line.

    Raises:
        UsageError: the arguments are wrong.
        HotshotError: there are bad samples, after all was printed.
    """
    refuse_without_effect(flags, given, _EFFECTS)
    for name in ("frames", "clips"):
        if getattr(given, name) < 1:
            raise UsageError(f"--{name} {getattr(given, name)} must be at least 1.")
    check_local(given.data_dir, "DIR")
    check_local(given.contact_sheet or "", "--contact_sheet")
    sheet_path = _place_of_sheet(given)
    report, clips = inspect_data(
        given.data_dir, given.frames, given.resolution, given.clips, given.seed
    )
    print(json.dumps(asdict(report)) if given.json else printable(describe(report)))
    if clips and sheet_path:
        path = write_video(sheet_path, contact_sheet(clips)[None], 1000, {}, overwrite=True)
        say(f"contact sheet of {len(clips)} samples: {path}")
    if report.problems:
        bad = report.samples - report.usable
        raise HotshotError(f"{bad} of {report.samples} samples cannot be used, as listed above.")


def _place_of_sheet(given: argparse.Namespace) -> str:
    """Where the contact sheet goes; empty for nowhere.

    Raises:
        UsageError: it would lie among the samples, where it counts as one.
    """
    path: str = SHEET if given.contact_sheet is None else given.contact_sheet
    data = parse_place(given.data_dir).place
    if not path or not Path(data).is_dir():
        return path
    if not is_inside(path, data):
        return path
    if given.contact_sheet is None:
        print(
            f"{INSPECT}: no contact sheet is drawn, since {SHEET} would lie among the samples; "
            "--contact_sheet takes another place.",
            file=sys.stderr,
        )
        return ""
    raise UsageError(f"--contact_sheet {path} lies among the samples. Name a place elsewhere.")


def inspect_data(
    data_dir: str, frames: int, resolution: int, clips: int, seed: int = 0
) -> tuple[Report, list[EncodedClip]]:
    """Look at a data set closely: every picture of a folder is decoded.

    Args:
        data_dir: as for training, see `open_data`.
        frames: that a sample must have at least.
        resolution: that the buckets are of.
        clips: how many random good samples to return for a contact sheet.
        seed: of their choice.

    Raises:
        UsageError: there is no such data.
    """
    sizes = bucket_sizes(resolution)
    root = Path(parse_place(data_dir).place)
    if root.is_dir() and find_data_set(root) is None:
        # Not `open_data`, which takes no data set without a good sample.
        refuse_videos(root)
        scan = scan_folders(root, frames, "decode")
        source = FolderSource(root, scan.names, scan.table, scan.rows)
        opened = OpenedData(source, "folders", scan.total, scan.problems, scan.left_out)
    else:
        opened = open_data(data_dir, frames, "skip")
    table = opened.source.table
    buckets = assign_buckets(table, sizes)
    names = [f"{width}x{height}" for width, height in sizes]
    looked_at = spread_indices(len(table), _MOST_LOOKED_AT) if opened.kind != "shapes" else []
    chosen = np.sort(np.random.default_rng(seed).permutation(len(table))[:clips])
    report = Report(
        data_dir=data_dir,
        kind=opened.kind,
        samples=opened.total,
        usable=len(table),
        frames={str(n): count for n, count in sorted(Counter(table["frames"].tolist()).items())},
        sizes=_commonest_sizes(table),
        buckets=dict(zip(names, np.bincount(buckets, minlength=len(sizes)).tolist(), strict=True)),
        enlarged=enlarged(table, buckets, sizes),
        problems=tuple(problem.message for problem in opened.problems),
        left_out=opened.left_out,
        looked_at=len(looked_at),
        warnings=_found(opened.source, looked_at),
    )
    return report, [opened.source[int(index)] for index in chosen]


def _found(source: ClipSource, indices: Sequence[int]) -> tuple[LeftOut, ...]:
    findings = Findings(token_counter())

    def look(index: int) -> tuple[EncodedClip, list[tuple[str, str]], Any] | None:
        try:
            clip = source[index]
            frames = [clip.frame(number) for number in range(len(clip.pictures))]
            remarks = [(CUT_CLIPS, clip.name)] if cuts(measured_changes(frames)) else []
            if clip.fps is not None and clip.fps < LEAST_FPS:
                remarks.append((SLOW_CLIPS, f"{clip.name}: {clip.fps:.3g}"))
            return clip, remarks, signature(frames)
        except HotshotError:
            # It broke since it was checked, and will be told again.
            return None

    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for seen in pool.map(look, indices):
            if seen is not None:
                clip, remarks, compared = seen
                findings.add(clip.name, clip.prompt, remarks, compared)
    return findings.found()


def describe(report: Report) -> str:
    """The report as text."""
    lines = [
        f"{report.data_dir} ({report.kind}): {report.samples} samples, {report.usable} usable",
        "",
        "frames a sample   samples",
        *(f"{frames:>15}   {count:>7}" for frames, count in report.frames.items()),
        "",
        "size (commonest)  samples",
        *(f"{size:>15}   {count:>7}" for size, count in report.sizes.items()),
        "",
        "bucket            samples",
        *(f"{size:>15}   {count:>7}" for size, count in report.buckets.items()),
    ]
    if report.enlarged:
        lines += ["", f"{report.enlarged} samples are smaller than their bucket: enlarged."]
    if report.left_out:
        lines += ["", "not read:", *(f"  {each}" for each in report.left_out)]
    if report.looked_at < report.usable:
        lines += ["", f"{report.looked_at} samples were looked at for warnings."]
    if report.warnings:
        lines += ["", "training may learn wrongly of:", *(f"  {each}" for each in report.warnings)]
    if report.problems:
        lines += ["", "cannot be used:", *(f"  {problem}" for problem in report.problems)]
    return "\n".join(lines)


def _commonest_sizes(table: ClipTable, most: int = 10) -> dict[str, int]:
    keys = table["width"].astype(np.uint32) << 16 | table["height"]
    values, counts = np.unique(keys, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return {f"{values[i] >> 16}x{values[i] & 0xFFFF}": int(counts[i]) for i in order}


def contact_sheet(clips: Sequence[EncodedClip], frames: int = 8) -> npt.NDArray[np.uint8]:
    """Draws a picture of some clips of a data set: a row for each, with its prompt.

    Args:
        clips: one a row; a clip that cannot be read has its error in place of frames.
        frames: at most so many of each clip, evenly spaced.

    Returns:
        uint8 [height, width, 3].
    """
    return draw_sheet([_row(clip, frames) for clip in clips])


def _row(clip: EncodedClip, most: int) -> tuple[str, list[npt.NDArray[np.uint8]]]:
    text = f"{clip.name}: {clip.prompt}"[:160].replace("\n", " ")
    try:
        return text, [clip.frame(index) for index in spread_indices(len(clip.pictures), most)]
    except HotshotError as error:
        return f"{text}  [{error}]", []
