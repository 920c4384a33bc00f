"""`python -m hotshot_jax.data.build`: the same as `hotshot-jax-data build`."""

import sys

if __name__ == "__main__":
    from hotshot_jax.cli.data.build import main

    sys.exit(main())
