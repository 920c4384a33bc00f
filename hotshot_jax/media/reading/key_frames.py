"""Which frames of a clip stand for it: evenly spaced, from its middle, spanning a duration."""

from collections.abc import Sequence

from hotshot_jax.errors import UsageError

# What a clip counts as that does not say how long its frames last: 8 frames a second when it is
# short, about 15 when it is long. The numbers are the PyTorch reference's.
_SHORT_CLIP_FRAMES = 16
_SHORT_CLIP_FRAME_MS = 125
_LONG_CLIP_FRAME_MS = 70


def estimated_frame_duration(durations_ms: Sequence[float]) -> float:
    """Give one duration in milliseconds for all frames of a clip.

    It is that of the last frame that has one, as in the reference; a duration of 0 means none.

    Args:
        durations_ms: one for each frame.
    """
    stated = [duration for duration in durations_ms if duration > 0]
    if stated:
        return stated[-1]
    return _SHORT_CLIP_FRAME_MS if len(durations_ms) <= _SHORT_CLIP_FRAMES else _LONG_CLIP_FRAME_MS


def key_frame_indices(
    durations_ms: Sequence[float], video_length: int, target_duration_ms: float
) -> list[int]:
    """Choose frames at a constant stride from the middle of a clip.

    Strides are tried from the longest that fits downwards, until the time between the first and the
    last chosen frame gets further from the wanted duration.

    Args:
        durations_ms: one for each frame of the clip, 0 where it has none.
        video_length: number of frames to choose.
        target_duration_ms: the duration that they should span.

    Returns:
        `video_length` indices in ascending order.

    Raises:
        UsageError: the clip has fewer frames than are to be chosen.
        ValueError: video_length is not positive.
    """
    count = len(durations_ms)
    if video_length < 1:
        raise ValueError(f"video_length is {video_length}; it must be positive")
    if count < video_length:
        raise UsageError(
            f"The clip has {count} {'frame' if count == 1 else 'frames'}, but `video_length` asks "
            f"for {video_length}. Give a longer clip or ask for fewer frames."
        )
    frame_ms = estimated_frame_duration(durations_ms)

    def distance(chosen: list[int]) -> float:
        return abs((chosen[-1] - chosen[0]) * frame_ms - target_duration_ms)

    best = _centred(count, video_length, count // video_length)
    for stride in range(count // video_length - 1, 0, -1):
        chosen = _centred(count, video_length, stride)
        if distance(chosen) > distance(best):
            break
        best = chosen
    return best


def _centred(count: int, video_length: int, stride: int) -> list[int]:
    """The middle `video_length` of `count` indices at a stride."""
    indices = range(0, count, stride)[:video_length]
    offset = (count - 1 - indices[-1]) // 2
    return [index + offset for index in indices]
