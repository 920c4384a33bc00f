"""`python -m hotshot_jax.data.build`: a TFDS data set from folders, video files or drawn shapes."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from hotshot_jax.cli.run import Parser, run, say
from hotshot_jax.cli.without_effect import Acts, given_flags, refuse_without_effect
from hotshot_jax.data.origins import FolderOrigin, Origin, ShapesOrigin, VideoOrigin, find_origin
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.writing.places import check_local, check_not_read, is_inside

PROGRAM = "data.build"
_EFFECTS = (
    Acts(
        ("length", "seed", "size", "split"),
        lambda origin: isinstance(origin, ShapesOrigin),
        "without --kind shapes",
    ),
    Acts(
        ("duration", "clips_per_video", "picture_format"),
        lambda origin: isinstance(origin, VideoOrigin),
        "on anything but videos",
    ),
    Acts(
        ("source", "on_bad_sample"),
        lambda origin: not isinstance(origin, ShapesOrigin),
        "with --kind shapes, which are drawn",
    ),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and give its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run(PROGRAM, lambda: build(arguments))


def build(arguments: Sequence[str] | None = None) -> None:
    """Build a data set as the arguments say and print its folder.

    Raises:
        UsageError: the arguments are wrong.
        HotshotError: the source is broken, or the training extra is not installed.
    """
    given, rest = _parser().parse_known_args(arguments)
    if rest and not given.beam:
        raise UsageError(f"unknown flag {rest[0]}. --help lists all flags.")
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
    refuse_without_effect(given_flags(arguments), origin, _EFFECTS)
    try:
        from hotshot_jax.data.tfds_builder import build_clips
    except ImportError as error:
        raise HotshotError(
            "Building a data set needs the training extra: pip install 'hotshot-jax[train]' "
            f"({error})"
        ) from error
    report = build_clips(
        origin, given.output, given.on_bad_sample, rest if given.beam else None, given.overwrite
    )
    left_out = [problem.message for problem in report.problems]
    left_out += map(str, origin.left_out())
    for each in left_out:
        say(f"{PROGRAM}: left out: {each}")
    if given.json:
        print(json.dumps({"folder": report.folder, "clips": report.clips, "left_out": left_out}))
        return
    if report.clips is not None:
        say(f"{PROGRAM}: {report.clips} clips")
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
    return origin(root, given.frames, given.duration, given.clips_per_video, given.picture_format)


def _check(given: argparse.Namespace) -> None:
    for name, least in (("frames", 1), ("clips_per_video", 1), ("length", 1), ("size", 8)):
        if getattr(given, name) < least:
            raise UsageError(f"--{name} {getattr(given, name)} must be at least {least}.")
    if given.seed < 0:
        raise UsageError(f"--seed {given.seed} must not be negative.")
    if not 0 < given.duration < float("inf"):
        raise UsageError(f"--duration {given.duration} must be a positive number of milliseconds.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m hotshot_jax.data.build",
        description="Build a TFDS data set in array_record form. With --beam, other flags go to "
        "Apache Beam, such as --runner=DataflowRunner.",
    )
    parser.add_argument("--source", metavar="DIR", help="folder of samples or of videos")
    parser.add_argument("--output", required=True, metavar="DIR", help="folder of the data set")
    parser.add_argument(
        "--kind",
        choices=("auto", "folders", "videos", "shapes"),
        default="auto",
        help="what the source holds; shapes are drawn and need none",
    )
    parser.add_argument("--frames", type=int, default=8, help="frames a clip")
    parser.add_argument(
        "--on_bad_sample", choices=("error", "skip"), default="error", help="what to do with them"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the data set at --output")
    parser.add_argument("--beam", action="store_true", help="build through Apache Beam")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    videos = parser.add_argument_group("videos")
    videos.add_argument(
        "--duration", type=float, default=1000.0, help="milliseconds that a clip's frames span"
    )
    videos.add_argument(
        "--clips_per_video", type=int, default=1, help="at most so many clips of each video"
    )
    videos.add_argument(
        "--picture_format",
        choices=("png", "jpeg"),
        default="png",
        help="png keeps pixels exactly, jpeg is smaller",
    )
    shapes = parser.add_argument_group("shapes")
    shapes.add_argument("--length", type=int, default=10_000, help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, help="another seed gives other clips")
    shapes.add_argument("--size", type=int, default=128, help="side of a frame in pixels")
    shapes.add_argument(
        "--split", choices=("train", "held_out", "all"), default="train", help="of the prompts"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
