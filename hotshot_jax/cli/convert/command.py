"""`python -m convert`, `hotshot-jax-convert`: the command line, read before JAX is imported."""

import argparse
from collections.abc import Sequence

from hotshot_jax.choices import PRECISIONS, TEMPORAL_SPELLINGS
from hotshot_jax.cli.flags import given_flags
from hotshot_jax.cli.run import Parser, program_name, run
from hotshot_jax.writing.places import check_local

PROGRAM = "convert"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""

    def body() -> None:
        given = _parser().parse_args(arguments)
        check_local(given.source, "SOURCE")
        check_local(given.dest, "DEST")
        from hotshot_jax.cli.convert.convert import convert

        convert(given, given_flags(arguments))

    return run(PROGRAM, body)


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=program_name("python -m convert"),
        description="Converts a Hotshot-XL checkpoint or an SDXL ControlNet from PyTorch's layout "
        "to Orbax, or back.",
    )
    parser.add_argument(
        "source",
        help="folder of a checkpoint or ControlNet, single file of a ControlNet, or "
        "organisation/name[@revision] of a checkpoint",
    )
    parser.add_argument("dest", help="folder to make")
    parser.add_argument(
        "--to-torch",
        action="store_true",
        help="SOURCE is a converted checkpoint; write the diffusers layout again",
    )
    parser.add_argument(
        "--temporal",
        choices=TEMPORAL_SPELLINGS,
        help="write the temporal layers alone: hotshot and comfyui to a .safetensors file, "
        "diffusers to the folder of a MotionAdapter; SOURCE may also be a file of them",
    )
    parser.add_argument(
        "--dtype", choices=PRECISIONS, help="dtype to store (default: as in the source)"
    )
    parser.add_argument(
        "--variant", help="weight files to prefer where there are several, such as fp16"
    )
    parser.add_argument(
        "--push_to_hub",
        metavar="ORG/NAME",
        help="with --to-torch: repository of the Hub that gets DEST and a card",
    )
    parser.add_argument("--hub_private", action="store_true", help="make the repository private")
    return parser
