"""Bringing arrays that are spread over devices and hosts to this host."""

from typing import Any

import jax
import numpy as np


def on_host(tree: Any) -> Any:
    """The whole arrays of a tree, as NumPy's.

    Where an array reaches over several hosts, all of them have to call it together.
    """

    def gathered(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            from jax.experimental import multihost_utils

            return multihost_utils.process_allgather(leaf, tiled=True)
        return np.asarray(leaf)

    return jax.tree.map(gathered, tree)
