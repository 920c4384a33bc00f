"""How a run goes while it runs: its smoothed loss, its rate, and the time that is left."""

import collections
from collections.abc import Mapping
from typing import Any

# Of TensorBoard's slider, where most leave it for losses that depend on a random timestep.
_SMOOTHING = 0.98
_STEPS_SEEN = 50


class Smoothed:
    """A moving average that begins with the first value, as TensorBoard's does."""

    def __init__(self, decay: float = _SMOOTHING) -> None:
        self._decay = decay
        self._sum = self._weight = 0.0

    def add(self, value: float) -> float:
        """The average with one more value."""
        self._sum = self._decay * self._sum + (1 - self._decay) * value
        self._weight = self._decay * self._weight + (1 - self._decay)
        return self._sum / self._weight


class Pace:
    """Numbers over the last updates. Compiling, saving and validating do not count.

    Args:
        steps: updates of the whole run.

    Attributes:
        step: the last update.
        loss: smoothed.
        samples_per_second: of all devices.
        waiting: the part of the time in which devices may have waited for data, 0 to 1.
        seconds_left: until the last update, at this rate.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.step = 0
        self.loss = self.samples_per_second = self.waiting = self.seconds_left = 0.0
        self._smoothed = Smoothed()
        self._last: collections.deque[tuple[float, float, float]] = collections.deque(
            maxlen=_STEPS_SEEN
        )

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Takes the numbers of an update, as the loop reports them."""
        seconds = values["step_seconds"]
        self.step = step
        self.loss = self._smoothed.add(values["loss"])
        self._last.append((seconds, values["data_seconds"], seconds * values["samples_per_second"]))
        total, waited, samples = map(sum, zip(*self._last, strict=True))
        self.samples_per_second = samples / total
        self.waiting = min(1.0, waited / total)
        self.seconds_left = (self.steps - step) * total / len(self._last)
