"""`python -m hotshot_jax`: makes GIFs, as the command `hotshot-jax` does."""

import sys

from hotshot_jax.cli.infer.command import main

if __name__ == "__main__":
    sys.exit(main())
