"""`hotshot-jax-data`: `build` and `inspect`, whose command lines are read before clips are touched.

Each is a command of its own too: `python -m hotshot_jax.data.build` and `.inspect`.
"""

import argparse
from collections.abc import Sequence

from hotshot_jax.cli.flags import given_flags
from hotshot_jax.cli.run import Parser, program_name, run, run_one_of
from hotshot_jax.errors import UsageError

PROGRAM = "hotshot-jax-data"
BUILD, INSPECT = "data.build", "data.inspect"
SHEET = "contact_sheet.png"
_USAGE = f"""usage: {PROGRAM} {{build,inspect}} ...

  build     makes a data set of folders, videos or drawn shapes
  inspect   tells what training would make of clips

{PROGRAM} build --help and {PROGRAM} inspect --help list the flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    return run_one_of(PROGRAM, _USAGE, _COMMANDS, arguments)


def build(arguments: Sequence[str] | None = None) -> int:
    """Builds a data set and gives the exit status: 0, 1 (run failed) or 2 (wrong usage)."""

    def body() -> None:
        given, rest = _build_parser().parse_known_args(arguments)
        if rest and not given.beam:
            raise UsageError(f"unknown flag {rest[0]}. --help lists all flags.")
        from hotshot_jax.cli.data.build import build

        build(given, given_flags(arguments), rest if given.beam else None)

    return run(BUILD, body)


def inspect(arguments: Sequence[str] | None = None) -> int:
    """Looks at a data set and gives the exit status: 0, 1 (bad samples) or 2 (wrong usage)."""

    def body() -> None:
        given = _inspect_parser().parse_args(arguments)
        from hotshot_jax.cli.data.inspect import inspect

        inspect(given, given_flags(arguments))

    return run(INSPECT, body)


_COMMANDS = {"build": build, "inspect": inspect}


def _program(name: str) -> str:
    installed = program_name("")
    return f"{installed} {name}" if installed else f"python -m hotshot_jax.data.{name}"


def _build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_program("build"),
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
    videos.add_argument(
        "--cut_threshold",
        type=float,
        default=10.0,
        metavar="PERCENT",
        help="change of brightness from which a frame begins another scene; clips keep within one",
    )
    shapes = parser.add_argument_group("shapes")
    shapes.add_argument("--length", type=int, default=10_000, help="number of clips")
    shapes.add_argument("--seed", type=int, default=0, help="another seed gives other clips")
    shapes.add_argument("--size", type=int, default=128, help="side of a frame in pixels")
    shapes.add_argument(
        "--split", choices=("train", "held_out", "all"), default="train", help="of the prompts"
    )
    return parser


def _inspect_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=_program("inspect"),
        description="Report what a data set holds and what is wrong with it.",
    )
    parser.add_argument("data_dir", metavar="DIR", help="as for train.py --data_dir")
    parser.add_argument("--frames", type=int, default=8, help="frames that a sample must have")
    parser.add_argument("--resolution", type=int, default=512, help="of the buckets")
    parser.add_argument(
        "--contact_sheet",
        metavar="PNG",
        help=f"where to draw samples (default: {SHEET}); '' for nowhere",
    )
    parser.add_argument("--clips", type=int, default=16, help="samples on the contact sheet")
    parser.add_argument("--seed", type=int, default=0, help="of their choice")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser
