"""Compiling before the first request what it will need."""

import dataclasses
from collections.abc import Sequence

from hotshot_jax.errors import HotshotError, UsageError
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
        # Where features are kept, one step of either kind.
        full = 1 if clip.cache_interval == 1 else (0,)
        few = dataclasses.replace(clip, steps=min(_STEPS, clip.steps), cache_interval=full)
        for batch in batch_sizes:
            with models.lent(batch) as maker:
                try:
                    list(maker.make([few] * batch))
                except UsageError:
                    raise
                except HotshotError:
                    # After so few steps a picture may be of a single colour.
                    pass
                # The thread that warms asks for nothing any more.
                maker.pipeline.runtime.start_job()
