"""`hotshot-jax-data`: `build` and `inspect` as one command."""

import sys
from collections.abc import Sequence

from hotshot_jax.version import __version__

PROGRAM = "hotshot-jax-data"
_USAGE = f"""usage: {PROGRAM} {{build,inspect}} ...

  build     makes a data set of folders, videos or drawn shapes
  inspect   tells what training would make of clips

{PROGRAM} build --help and {PROGRAM} inspect --help list the flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and gives its exit status: 0, 1 (run failed) or 2 (wrong usage)."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    name = given[0] if given else ""
    if name in ("-h", "--help"):
        print(_USAGE)
        return 0
    if name == "--version":
        print(f"{PROGRAM} {__version__}")
        return 0
    if name == "build":
        from hotshot_jax.cli.data import build

        return build.main(given[1:])
    if name == "inspect":
        from hotshot_jax.cli.data import inspect

        return inspect.main(given[1:])
    print(_USAGE, file=sys.stderr)
    return 2
