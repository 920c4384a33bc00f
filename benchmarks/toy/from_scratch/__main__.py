"""`python -m benchmarks.toy.from_scratch`: the stages before `train.py`."""

import sys

from benchmarks.toy.from_scratch.command import main

if __name__ == "__main__":
    sys.exit(main())
