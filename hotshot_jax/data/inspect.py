"""`python -m hotshot_jax.data.inspect`: the same as `hotshot-jax-data inspect`."""

import sys

if __name__ == "__main__":
    from hotshot_jax.cli.data.command import inspect

    sys.exit(inspect())
