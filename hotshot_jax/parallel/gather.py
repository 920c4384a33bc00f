"""Bringing arrays that are spread over devices and hosts to this host."""

from typing import Any

import jax
import numpy as np


def on_host(tree: Any) -> Any:
    """The whole arrays of a tree, as NumPy's; all hosts have to call it together."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        return multihost_utils.process_allgather(tree, tiled=True)
    return jax.tree.map(np.asarray, tree)
