"""Entry point of `python -m convert`."""

import sys

from hotshot_jax.cli.convert.command import main

if __name__ == "__main__":
    sys.exit(main())
