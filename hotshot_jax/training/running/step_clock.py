"""How long updates take, without what happens between them and is no training."""

import contextlib
import time
from collections.abc import Iterator


class StepClock:
    """A stopwatch that can be stopped while something else is done. It starts running."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._left_out = 0.0

    def lap(self) -> float:
        """Seconds since the last call, without those of pauses."""
        now = time.monotonic()
        seconds = now - self._since - self._left_out
        self._since, self._left_out = now, 0.0
        return seconds

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time until the end of the context does not count."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._left_out += time.monotonic() - begin
