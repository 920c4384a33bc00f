"""How far the clips are that are being made, and how long they will still take."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator

import jax
import numpy as np

from hotshot_jax.runtime.progress import Advance

# Shares of the whole, in percent: where a stage begins and ends.
_SHARES = {"encoding": (1, 5), "denoising": (5, 90), "decoding": (90, 97), "writing": (97, 99)}

# Latents are fetched from the device for whoever looked so lately, and no more often.
_LOOKED_SECONDS = 3.0
_BETWEEN_SECONDS = 0.3


@dataclasses.dataclass(frozen=True)
class Standing:
    """Where the work is.

    Attributes:
        stage: its name, such as `compiling` or `denoising`.
        percent: of the whole.
        seconds_left: as far as that can be told.
        compiled: whether something was compiled for it, which takes long, once for each size.
    """

    stage: str = "starting"
    percent: int = 0
    seconds_left: float | None = None
    compiled: bool = False


class WatchedProgress:
    """Keeps in mind where the work is; read by other threads.

    Args:
        seconds_after: what follows the denoising takes, as far as that is known.
    """

    def __init__(self, seconds_after: float | None = None) -> None:
        self._seconds_after = seconds_after
        self._denoised_at: float | None = None
        self._latents: np.ndarray | None = None
        self._looked_at = self._fetched_at = -math.inf
        self.standing = Standing()

    @property
    def seconds_since_denoising(self) -> float | None:
        """How long what follows the denoising has taken; None before."""
        return None if self._denoised_at is None else time.monotonic() - self._denoised_at

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        """Follows a stage."""
        first, last = _SHARES.get(name, (self.standing.percent, self.standing.percent))
        start, done = time.monotonic(), 0

        def advance(units: int) -> None:
            nonlocal done
            done += units
            left = self._left(name, time.monotonic() - start, done, total)
            self._tell(name, first + (last - first) * done // max(total, 1), left)

        self._tell(name, first, None)
        yield advance
        if name == "denoising":
            self._denoised_at = time.monotonic()

    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        """Tells that the work waits for a program."""
        before = self.standing
        self.standing = dataclasses.replace(before, stage="compiling", compiled=True)
        yield
        self.standing = dataclasses.replace(before, compiled=True)

    def write(self) -> None:
        """Tells that the files are written."""
        self._tell("writing", _SHARES["writing"][0], None)

    def watch(self, latents: jax.Array) -> None:
        """Keeps latents as they stand, if somebody looks at them.

        Args:
            latents: `[videos, frames, height / 8, width / 8, channels]`.
        """
        now = time.monotonic()
        if now - self._looked_at < _LOOKED_SECONDS and now - self._fetched_at >= _BETWEEN_SECONDS:
            self._latents = np.asarray(latents)
            self._fetched_at = now

    def look(self) -> np.ndarray | None:
        """The latents that were kept last; has them kept for a while."""
        self._looked_at = time.monotonic()
        return self._latents

    def _left(self, name: str, seconds: float, done: int, total: int) -> float | None:
        if name == "denoising":
            after = self._seconds_after or 0.0
            return round(seconds / done * (total - done) + after, 1)
        if self._denoised_at is None or self._seconds_after is None:
            return None
        return round(max(0.0, self._seconds_after - (time.monotonic() - self._denoised_at)), 1)

    def _tell(self, stage: str, percent: int, left: float | None) -> None:
        self.standing = Standing(stage, percent, left, self.standing.compiled)
