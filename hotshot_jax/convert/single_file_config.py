"""The former place of `convert.formats.single_file_config`, by which scripts know it."""

from hotshot_jax.convert.formats.single_file_config import scheduler_config as scheduler_config
