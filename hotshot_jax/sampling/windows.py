"""Context windows: which frames of a long clip the model sees together in each step.

The schedules and weights are those of ComfyUI-AnimateDiff-Evolved
(https://github.com/Kosinkadink/ComfyUI-AnimateDiff-Evolved), but for three rules: a level of
`looped_uniform` is used only where its windows hold no frame twice, a closed clip that fits into
one window is rotated, and weights are divided by their sums in float64, before anything is
multiplied by them.
"""

import dataclasses
import itertools
import math

import numpy as np

from hotshot_jax.choices import CONTEXT_FUSES, CONTEXT_SCHEDULES
from hotshot_jax.errors import UsageError

Window = tuple[int, ...]
"""Distinct frames in the order in which the model sees them."""

# The float32 nearest to what the rule calls for: a weight that is as good as none.
_FAINT = float(np.float32(1e-37))


LONG_CLIP_LENGTH = 8
"""Frames of a window where nothing is said: what Hotshot-XL was trained on."""


@dataclasses.dataclass(frozen=True)
class ContextConfig:
    """How a clip is divided into windows, and how what the model says of them is joined.

    Attributes:
        length: frames of a window.
        overlap: frames that neighbouring windows share; below `length`.
        schedule: one of `CONTEXT_SCHEDULES`.
        stride: levels of `looped_uniform` and `standard_uniform`; level l takes every 2^l-th frame.
        fuse: one of `CONTEXT_FUSES`.
        closed: whether the last frame is followed by the first.

    Raises:
        UsageError: a value is out of range, or two do not go together.
    """

    length: int
    overlap: int
    schedule: str = "standard_static"
    stride: int = 1
    fuse: str = "pyramid"
    closed: bool = False

    def __post_init__(self) -> None:
        for name, value, known in (
            ("context_schedule", self.schedule, CONTEXT_SCHEDULES),
            ("context_fuse", self.fuse, CONTEXT_FUSES),
        ):
            if value not in known:
                raise UsageError(f"`{name}` is {value!r}; expected {', '.join(known)}.")
        if self.length < 1:
            raise UsageError(f"`context_length` is {self.length}; expected at least 1 frame.")
        if not 0 <= self.overlap < self.length:
            raise UsageError(
                f"`context_overlap` is {self.overlap}; expected 0 to {self.length - 1}, less than "
                f"`context_length` ({self.length})."
            )
        if self.stride < 1:
            raise UsageError(f"`context_stride` is {self.stride}; expected 1 or more.")
        if self.closed and self.schedule != "looped_uniform":
            raise UsageError(
                f"`context_schedule` is {self.schedule}, which closes no loop; looped_uniform does."
            )
        if self.fuse == "relative" and self.schedule not in ("standard_static", "batched"):
            raise UsageError(
                "`context_fuse` relative is for windows of neighbouring frames: `context_schedule` "
                f"standard_static or batched, not {self.schedule}."
            )

    @classmethod
    def of_clip(
        cls,
        frames: int,
        positions: int,
        *,
        loop: bool = False,
        length: int | None = None,
        overlap: int | None = None,
        schedule: str | None = None,
        stride: int = 1,
        fuse: str = "pyramid",
    ) -> "ContextConfig | None":
        """What a clip needs, with defaults for what is None.

        Args:
            frames: of the clip.
            positions: frames that the temporal layers know, and thus see at once at most.
            loop: whether the last frame is followed by the first.
            length: frames of a window; by default all, or `LONG_CLIP_LENGTH` if those are too many.
            overlap: frames that neighbouring windows share; by default half of them.
            schedule: one of `CONTEXT_SCHEDULES`.
            stride: see the class.
            fuse: one of `CONTEXT_FUSES`.

        Returns:
            None where the model sees the whole clip as it is.

        Raises:
            UsageError: see the class.
        """
        if frames < 1:
            return None
        if length is None:
            length = frames if frames <= positions else LONG_CLIP_LENGTH
        overlap = length // 2 if overlap is None else overlap
        schedule = schedule or ("looped_uniform" if loop else "standard_static")
        context = cls(length, overlap, schedule, stride, fuse, closed=loop)
        # What cannot be is kept, to be refused.
        return context if loop or context.divides(frames) or length > positions else None

    def divides(self, frames: int) -> bool:
        """Whether the model sees a clip otherwise than as a whole, from the first frame on."""
        return frames > (1 if self.closed else self.length)

    def windows(self, frames: int, step: int) -> list[Window]:
        """The windows of a step, counted from 0 in the run.

        Args:
            frames: of the clip.
            step: number of the step; both calls of a solver that makes two have the same.

        Raises:
            UsageError: a frame is in no window.
        """
        if frames <= self.length:
            first = rotation(frames, step) if self.closed else 0
            return [tuple((first + place) % frames for place in range(frames))]
        if self.schedule == "looped_uniform":
            windows = circular(frames, self.length, self.overlap, self.stride, step, self.closed)
        elif self.schedule == "standard_uniform":
            windows = standard_uniform(frames, self.length, self.overlap, self.stride, step)
        elif self.schedule == "standard_static":
            windows = standard_static(frames, self.length, self.overlap)
        else:
            windows = batched(frames, self.length)
        missing = set(range(frames)).difference(*windows)
        if missing:
            raise UsageError(
                f"Frame {min(missing)} is in no window of step {step}: take `context_stride` 1, or "
                "another `context_overlap`."
            )
        return windows

    def weights(self, windows: list[Window], frames: int) -> list[np.ndarray]:
        """What each window's prediction of each of its frames is multiplied by.

        Args:
            windows: of a step, which cover all frames.
            frames: of the clip.

        Returns:
            For each window, float32 `[length]`; over windows the weights of a frame add up to 1.
        """
        if self.fuse == "first":
            weights = first_weights(windows)
        else:
            weights = [fuse_weights(self.fuse, each, frames, self.overlap) for each in windows]
        sums = np.zeros(frames)
        for window, of_window in zip(windows, weights, strict=True):
            sums[list(window)] += of_window
        return [
            (of_window / sums[list(window)]).astype(np.float32)
            for window, of_window in zip(windows, weights, strict=True)
        ]


def half(step: int) -> float:
    """The step's binary digits mirrored at the point (van der Corput): 0, 1/2, 1/4, 3/4, ..."""
    return sum((step >> digit & 1) / 2 ** (digit + 1) for digit in range(step.bit_length()))


def rotation(frames: int, step: int) -> int:
    """The frame with which a closed clip of one window begins in a step; half to even."""
    return round(frames * half(step)) % frames


def circular(
    frames: int, length: int, overlap: int, stride: int, step: int, closed: bool
) -> list[Window]:
    """Windows that go round the clip from a place that changes with the step.

    Open, the last starts alone are left out; windows still cross from the last frame to the first.
    """
    levels = min(stride, math.ceil(math.log2(frames / length)) + 1)
    windows = []
    for spacing in (2**level for level in range(levels)):
        if (length - 1) * spacing + 1 > frames:
            break
        offset = round(frames * half(step))
        first = offset + math.floor(spacing * half(step))
        end = offset + frames - (0 if closed else overlap)
        for start in range(first, end, spacing * length - overlap):
            windows.append(tuple((start + place * spacing) % frames for place in range(length)))
    return windows


def standard_uniform(
    frames: int, length: int, overlap: int, stride: int, step: int
) -> list[Window]:
    """The open circular windows, with those that cross the clip's end slid back to it.

    Their number changes from step to step.
    """
    windows = circular(frames, length, overlap, stride, step, closed=False)
    index = 0
    while index < len(windows):
        window = windows[index]
        crossing = next(
            (at for at_before, at in itertools.pairwise(window) if at < at_before), None
        )
        if crossing is not None:
            distances = [(frame - window[0]) % frames for frame in window]
            windows[index] = tuple(frames - 1 - distances[-1] + each for each in distances)
            if crossing not in windows[(index + 1) % len(windows)]:
                windows.insert(index + 1, tuple(range(crossing, crossing + length)))
        index += 1
    return list(dict.fromkeys(windows))


def standard_static(frames: int, length: int, overlap: int) -> list[Window]:
    """Windows of neighbouring frames, the same in every step; the last ends with the clip."""
    last = frames - length
    starts = [*range(0, last, length - overlap), last]
    return [tuple(range(start, start + length)) for start in starts]


def batched(frames: int, length: int) -> list[Window]:
    """Windows that share no frame; the last is shorter where `length` does not divide `frames`."""
    starts = range(0, frames, length)
    return [tuple(range(start, min(start + length, frames))) for start in starts]


def first_weights(windows: list[Window]) -> list[np.ndarray]:
    """Weights with which each frame is what the first window says that has it.

    Frames then follow those before them, and not those behind: for a clip that goes on.
    """
    seen: set[int] = set()
    weights = []
    for window in windows:
        weights.append(np.array([float(frame not in seen) for frame in window]))
        seen.update(window)
    return weights


def fuse_weights(fuse: str, window: Window, frames: int, overlap: int) -> np.ndarray:
    """Weights of a window's places before they are divided by their sums; float64 `[length]`.

    Args:
        fuse: one of `CONTEXT_FUSES`, but for "first".
        window: its frames.
        frames: of the clip.
        overlap: frames that neighbouring windows share.
    """
    places = np.arange(len(window), dtype=np.float64)
    if fuse == "pyramid":
        return np.minimum(places + 1, len(window) - places)
    if fuse == "relative":
        middle = (window[0] + window[-1]) / 2
        reach = (window[-1] - window[0] + 0.01) / 2
        return np.maximum(0.01, 1 - np.abs(np.array(window) - middle) / reach)
    weights = np.ones(len(window))
    if fuse == "overlap_linear" and overlap:
        ramp = np.linspace(_FAINT, 1, overlap) if overlap > 1 else np.array([_FAINT])
        if min(window) > 0:
            weights[:overlap] = ramp
        if max(window) < frames - 1:
            weights[-overlap:] = ramp[::-1] if overlap > 1 else 1.0
    return weights
