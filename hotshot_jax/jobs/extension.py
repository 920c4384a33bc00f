"""Clips that go on: what a run sees of the clip before, and where its new frames come out."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from hotshot_jax.conditioning.key_frames import shifted_keys
from hotshot_jax.errors import UsageError
from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.stored_frames import Frames, StoredFrames
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.start import FROM_NOISE, StartInput
from hotshot_jax.sampling.request import MAX_FRAMES

# Steps of 255 that pixels may differ by and still show the same, about.
_SAME = 16.0


@dataclasses.dataclass(frozen=True)
class Extension:
    """A clip that goes on.

    A run makes more frames than are added: before them come the clip's last ones, which it knows.
    In a loop the clip's first ones come behind them, so that what is added leads back to these.

    Attributes:
        clip: uint8 `[frames, height, width, 3]`, in the size of the run.
        added: frames to add.
        window: frames that the model sees together; half of them are known at either end.
        loop: whether the last added frame is followed by the clip's first.

    Raises:
        UsageError: the run would be longer than any may be.
    """

    clip: Frames
    added: int
    window: int
    loop: bool = False

    def __post_init__(self) -> None:
        if self.before + self.added + self.behind > MAX_FRAMES:
            raise UsageError(
                f"{self.added} frames are to be added, which with {self.before + self.behind} of "
                f"the clip itself is more than {MAX_FRAMES}; add fewer at once."
            )

    @property
    def before(self) -> int:
        """Known frames before those that are added."""
        return min(max(1, self.window // 2), len(self.clip))

    @property
    def behind(self) -> int:
        """Known frames behind those that are added."""
        return self.before if self.loop else 0

    def settings(self, added: ClipSettings) -> ClipSettings:
        """Those of the run, from those of the added frames; a window is `window` frames long.

        With `context_fuse="first"` the added frames follow those of the clip best, since what a
        window says that has them counts alone.
        """
        run = added.as_part(self.before, self.behind)
        return dataclasses.replace(run, context_length=min(self.window, run.video_length))

    def start(self, added: StartInput = FROM_NOISE) -> StartInput:
        """What the run starts from, from what the added frames do."""
        first = len(self.clip) - self.before
        known = {frame: self.clip[first + frame] for frame in range(self.before)}
        known |= {frame + self.before: each for frame, each in added.known_frames.items()}
        after = self.before + self.added
        known |= {after + frame: self.clip[frame] for frame in range(self.behind)}
        return dataclasses.replace(added, known_frames=known)

    def control(self, added: ControlInput) -> ControlInput:
        """What a ControlNet follows in the run; known frames go with the added one next to them."""
        frames = np.asarray(added.frames)
        around = ((self.before, self.behind), *[(0, 0)] * (frames.ndim - 1))
        scale = shifted_keys(added.window.scale, self.before)
        return dataclasses.replace(
            added,
            frames=np.pad(frames, around, mode="edge"),
            window=dataclasses.replace(added.window, scale=scale),
        )

    def joined(self, made: Frames) -> StoredFrames:
        """The clip, followed by what a run made for it.

        The run knows the clip as the VAE gives it back. What the VAE took from the frame before
        those that are added, and in a loop from the frame after them, is given back to these where
        they show the same, so that nothing jumps that does not move.

        Args:
            made: all frames of the run, uint8 `[frames, height, width, 3]`.
        """
        both = StoredFrames(*made.shape[1:3])
        for frame in self.clip:
            both.append(frame[None])
        ends = [(self.before - 1, self.clip[len(self.clip) - 1])]
        if self.behind:
            ends.append((self.before + self.added, self.clip[0]))
        for frame in range(self.before, self.before + self.added):
            weights = _closeness(frame, [end for end, _ in ends])
            pixels = made[frame].astype(np.float32)
            detail = [
                weight * _detail(original, made[end], made[frame])
                for weight, (end, original) in zip(weights, ends, strict=True)
            ]
            whole = np.clip(np.rint(pixels + sum(detail)), 0, 255)
            both.append(whole.astype(np.uint8)[None])
        return both


def _closeness(frame: int, ends: Sequence[int]) -> list[float]:
    """How much each of one or two frames has to say of one between them; adds up to 1."""
    if len(ends) == 1:
        return [1.0]
    first, last = ends
    return [(last - frame) / (last - first), (frame - first) / (last - first)]


def _detail(original: np.ndarray, decoded: np.ndarray, other: np.ndarray) -> np.ndarray:
    """What `decoded` lacks of `original`, where `other` shows what it shows; float32."""
    decoded = decoded.astype(np.float32)
    change = np.abs(other - decoded).max(-1, keepdims=True)
    return np.exp(-((change / _SAME) ** 2)) * (original - decoded)
