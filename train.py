"""Fine-tuning: `python train.py --data_dir DIR --output_dir OUT`; `--help` lists all flags."""

import sys

from hotshot_jax.cli.train.command import main

if __name__ == "__main__":
    sys.exit(main())
