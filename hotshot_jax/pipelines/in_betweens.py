"""New frames between those of a clip."""

import numpy as np
import numpy.typing as npt

from hotshot_jax.media.stored_frames import Frames
from hotshot_jax.pipelines.start import StartInput

# By measurement (docs/tiny_model.md).
STRENGTH = 0.5
REPAINT = 2


def length_with_between(frames: int, between: int, *, loop: bool = False) -> int:
    """Frames of a clip with so many between each two; in a loop also between the last and first."""
    return frames * (between + 1) - (0 if loop else between)


def blended(clip: Frames, between: int, *, loop: bool = False) -> npt.NDArray[np.uint8]:
    """A clip with linear blends of each two frames between them.

    Args:
        clip: uint8 `[frames, height, width, 3]`.
        between: blends between each two.
        loop: whether the last frame is followed by the first.

    Returns:
        uint8 `[length_with_between(frames), height, width, 3]`.
    """
    made = []
    for number in range(length_with_between(len(clip), between, loop=loop)):
        before, place = divmod(number, between + 1)
        share = np.float32(place / (between + 1))
        after = (before + (place > 0)) % len(clip)
        mixed = (1 - share) * np.float32(clip[before]) + share * np.float32(clip[after])
        made.append(np.rint(mixed).astype(np.uint8))
    return np.stack(made)


def start_between(
    clip: Frames,
    between: int,
    *,
    loop: bool = False,
    strength: float = STRENGTH,
    repaint: int = REPAINT,
) -> StartInput:
    """A start that keeps every frame of a clip, and begins between them with linear blends.

    Args:
        clip: uint8 `[frames, height, width, 3]`.
        between: frames to make between each two; the clip is then `length_with_between` long.
        loop: whether the last frame is followed by the first.
        strength: the part of the schedule that is run.
        repaint: how often each step is made.
    """
    known = {number * (between + 1): frame for number, frame in enumerate(clip)}
    start = blended(clip, between, loop=loop)
    return StartInput(start, strength, known_frames=known, repaint=repaint)
