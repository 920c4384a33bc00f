"""`python -m hotshot_jax.data.build`: the same as `hotshot-jax-data build`."""

import sys

if __name__ == "__main__":
    from hotshot_jax.cli.data.command import build

    sys.exit(build())
