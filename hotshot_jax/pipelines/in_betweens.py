"""New frames between those of a clip."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from hotshot_jax.pipelines.start import StartInput


def length_with_between(frames: int, between: int, *, loop: bool = False) -> int:
    """Frames of a clip with so many between each two; in a loop also between the last and first."""
    return frames * (between + 1) - (0 if loop else between)


def start_between(
    clip: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8], between: int
) -> StartInput:
    """A start that keeps every frame of a clip, with room between them.

    Args:
        clip: uint8 `[frames, height, width, 3]`.
        between: frames to make between each two; the clip is then `length_with_between` long.
    """
    return StartInput(
        known_frames={number * (between + 1): frame for number, frame in enumerate(clip)}
    )
