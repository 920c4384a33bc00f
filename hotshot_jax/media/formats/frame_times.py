"""How long each frame of a clip lasts, in the units of a file format."""

import math
from typing import Final

from hotshot_jax.errors import UsageError

# Browsers show frames of under two hundredths of a second as if they lasted ten.
SHORTEST_FRAME_MS: Final = 20
# The most that a GIF can store, 65535 hundredths of a second.
LONGEST_FRAME_MS: Final = 655_350


def check_duration(duration_ms: float, video_length: int) -> None:
    """Check that a clip's frames last neither too short nor too long for every file format.

    Raises:
        UsageError: naming `video_duration` and the bound.
    """
    shortest, longest = SHORTEST_FRAME_MS * video_length, LONGEST_FRAME_MS * video_length
    if not math.isfinite(duration_ms) or not shortest <= duration_ms <= longest:
        raise UsageError(
            f"`video_duration` is {duration_ms} milliseconds; for {video_length} frames it must be "
            f"from {shortest} ({SHORTEST_FRAME_MS} a frame) to {longest}."
        )


def frame_times(duration_ms: float, frames: int, unit_ms: int) -> list[int]:
    """Spread a duration over frames in whole units, as evenly as they allow.

    Eight frames over a second in hundredths last 12, 13, 12, 13, ...

    Args:
        duration_ms: of the whole clip.
        frames: their number.
        unit_ms: 10 for hundredths of a second, 1 for milliseconds.

    Returns:
        The frames' times, which add up to the duration rounded to a unit.
    """
    total = math.floor(duration_ms / unit_ms + 0.5)
    ends = [total * (index + 1) // frames for index in range(frames)]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]
