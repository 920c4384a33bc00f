"""`hotshot-jax-measure`: the command line, read before a clip is touched."""

import argparse
from collections.abc import Sequence

from hotshot_jax.cli.run import Parser, program_name, run

PROGRAM = "measure"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""

    def body() -> None:
        given = _parser().parse_args(arguments)
        from hotshot_jax.cli.measure.measure import measure

        measure(given)

    return run(PROGRAM, body)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program_name("python -m hotshot_jax.measure"),
        description="Measures clips by their pixels: how much they move, whether they loop, "
        "flicker, drift in colour or stand, and how like another clip they are. Levels are those "
        "of 8-bit pixels, 0 to 255.",
    )
    add = parser.add_argument
    add("clips", nargs="+", metavar="CLIP", help="GIF, WebP, MP4, WebM or a folder of pictures")
    add(
        "--against",
        metavar="CLIP",
        help="a clip of the same size and length that each should be like, such as the frames a "
        "GIF was made of: adds error, PSNR and SSIM",
    )
    add("--plot", metavar="PNG", help="draw the measures over the frames")
    add("--sheet", metavar="PNG", help="draw the frames beside each other, at most 64 of a clip")
    add("--json", action="store_true", help="print one JSON object a clip, a line each")
    return parser
