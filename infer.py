"""Text to GIF: `python infer.py --prompt "..." --output clip.gif`; `--help` lists all flags."""

import sys

from hotshot_jax.cli.infer.command import main

if __name__ == "__main__":
    sys.exit(main())
