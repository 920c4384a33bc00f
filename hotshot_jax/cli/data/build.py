"""`build`: a TFDS data set from folders, video files or drawn shapes."""

import argparse
import json
from collections.abc import Collection
from pathlib import Path

from hotshot_jax.cli.data.command import BUILD
from hotshot_jax.cli.data.tokens import token_counter
from hotshot_jax.cli.flags import Acts, refuse_without_effect
from hotshot_jax.cli.run import say
from hotshot_jax.data.origins import FolderOrigin, Origin, ShapesOrigin, VideoOrigin, find_origin
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing.places import check_local, check_not_read, is_inside

_EFFECTS = (
    Acts(
        ("length", "seed", "size", "split"),
        lambda origin: isinstance(origin, ShapesOrigin),
        "without --kind shapes",
    ),
    Acts(
        ("duration", "clips_per_video", "picture_format", "cut_threshold"),
        lambda origin: isinstance(origin, VideoOrigin),
        "on anything but videos",
    ),
    Acts(
        ("source", "on_bad_sample"),
        lambda origin: not isinstance(origin, ShapesOrigin),
        "with --kind shapes, which are drawn",
    ),
)


def build(given: argparse.Namespace, flags: Collection[str], beam: list[str] | None) -> None:
    """Builds a data set as the arguments say and prints its folder.

    Args:
        given: the arguments.
        flags: names of those that stand on the command line.
        beam: flags of Apache Beam; None to build without it.

    Raises:
        UsageError: the arguments are wrong.
        HotshotError: the source is broken, or the training extra is not installed.
    """
    _check(given)
    for name in ("source", "output"):
        check_local(getattr(given, name) or "", f"--{name}")
    if given.source is not None and is_inside(given.output, given.source):
        raise UsageError(
            f"--output {given.output} lies in --source {given.source}, and would be read as part "
            "of it the next time. Name a folder beside it."
        )
    if given.source is not None:
        check_not_read(given.output, {"--source": given.source}, "--output")
    origin = _origin(given)
    refuse_without_effect(flags, origin, _EFFECTS)
    try:
        from hotshot_jax.data.tfds_builder import build_clips
    except ImportError as error:
        raise HotshotError(
            "Building a data set needs the training extra: pip install 'hotshot-jax[train]' "
            f"({error})"
        ) from error
    report = build_clips(
        origin, given.output, given.on_bad_sample, beam, given.overwrite, token_counter()
    )
    left_out = [problem.message for problem in report.problems]
    left_out += map(str, origin.left_out())
    for each in left_out:
        say(f"{BUILD}: left out: {each}")
    warnings = list(map(str, report.warnings))
    for each in warnings:
        say(f"{BUILD}: warning: {each}")
    if given.json:
        told = {"folder": report.folder, "clips": report.clips}
        print(json.dumps({**told, "left_out": left_out, "warnings": warnings}))
        return
    if report.clips is not None:
        say(f"{BUILD}: {report.clips} clips")
    print(report.folder)


def _origin(given: argparse.Namespace) -> Origin:
    if given.kind == "shapes":
        return ShapesOrigin(
            ShapesSource(given.length, given.seed, given.size, given.frames, given.split)
        )
    if given.source is None:
        raise UsageError("--source is missing: name the folder of samples or videos.")
    root = Path(given.source)
    origin = find_origin if given.kind == "auto" else VideoOrigin
    if given.kind == "folders":
        return FolderOrigin(root, given.frames)
    if not root.is_dir():
        raise UsageError(f"--source {root} is not a folder.")
    return origin(
        root,
        given.frames,
        given.duration,
        given.clips_per_video,
        given.picture_format,
        given.cut_threshold,
    )


def _check(given: argparse.Namespace) -> None:
    for name, least in (("frames", 1), ("clips_per_video", 1), ("length", 1), ("size", 8)):
        if getattr(given, name) < least:
            raise UsageError(f"--{name} {getattr(given, name)} must be at least {least}.")
    if given.seed < 0:
        raise UsageError(f"--seed {given.seed} must not be negative.")
    if not 0 < given.duration < float("inf"):
        raise UsageError(f"--duration {given.duration} must be a positive number of milliseconds.")
    if not 0 < given.cut_threshold <= 100:
        raise UsageError(
            f"--cut_threshold {given.cut_threshold} must be a number above 0, and at most 100."
        )
