"""`python -m hotshot_jax.from_scratch`: the stages before `train.py`."""

import sys

from hotshot_jax.cli.from_scratch.command import main

if __name__ == "__main__":
    sys.exit(main())
