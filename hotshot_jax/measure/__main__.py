"""`python -m hotshot_jax.measure`: the same as `hotshot-jax-measure`."""

import sys

if __name__ == "__main__":
    from hotshot_jax.cli.measure.command import main

    sys.exit(main())
