"""Control frames made of the clips themselves, while they are read."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from hotshot_jax.data.batch import Arrays, ClipRequest, Prepare, decode_frames

MakeControl = Callable[[np.ndarray], np.ndarray]
"""From frames to control frames, both uint8 `[frames, height, width, 3]`."""


@dataclasses.dataclass(frozen=True)
class ControlFrames:
    """A loader's `prepare` that adds control frames to what another one prepares.

    They are made of the frames as they are trained on, scaled and cropped, which is what a pipeline
    makes them of. Frames are decoded for that even where latents are cached.

    Attributes:
        make: makes them; called from several threads.
        prepare: prepares the rest: frames, or cached latents.
    """

    make: MakeControl
    prepare: Prepare = decode_frames

    def __call__(self, request: ClipRequest) -> Arrays:
        """What `prepare` gives, and `control`, uint8 `[frames, height, width, 3]`.

        Raises:
            HotshotError: a frame cannot be read, or their sizes differ.
        """
        decoded = decode_frames(request)
        rest: dict[str, Any] = dict(
            decoded if self.prepare is decode_frames else self.prepare(request)
        )
        return {**rest, "control": self.make(np.stack(decoded["frames"]))}
