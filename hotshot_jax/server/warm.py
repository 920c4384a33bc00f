"""Compiling before the first request what it will need."""

import contextlib
import dataclasses
from collections.abc import Sequence

from hotshot_jax.errors import HotshotError
from hotshot_jax.server.heard import kept_from_log, warnings_heard
from hotshot_jax.server.models import Models
from hotshot_jax.server.planning import Planner

_STEPS = 2


def warm(
    models: Models, planner: Planner, size: tuple[int, int, int], batch_sizes: Sequence[int]
) -> None:
    """Makes a clip of a size in every batch size, in few steps.

    Args:
        models: what it is made with.
        planner: plans it.
        size: width, height and frames.
        batch_sizes: clips of a call.

    Raises:
        UsageError: the model cannot make that size.
    """
    width, height, frames = size
    values = {"prompt": "a", "width": width, "height": height, "video_length": frames, "seed": 0}
    with kept_from_log(), warnings_heard():
        clip = planner(values, {}).clip
        few = dataclasses.replace(clip, steps=min(_STEPS, clip.steps))
        for batch in batch_sizes:
            # After so few steps a picture may be of a single colour.
            with contextlib.suppress(HotshotError), models.lent(batch) as maker:
                list(maker.make([few] * batch))
