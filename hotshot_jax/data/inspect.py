"""`python -m hotshot_jax.data.inspect`: the same as `hotshot-jax-data inspect`."""

import sys

if __name__ == "__main__":
    from hotshot_jax.cli.data.inspect import main

    sys.exit(main())
