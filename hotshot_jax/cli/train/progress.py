"""What a person sees of a training run: a bar on a terminal, plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tqdm import tqdm

from hotshot_jax.cli.run import say
from hotshot_jax.training.running.pace import Pace
from hotshot_jax.training.running.summary import describe_seconds

_SECONDS_BETWEEN_LINES = 30.0
# Its own rate and time left would count compiling and validating.
_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"


class TrainingProgress:
    """Shows the updates of a run.

    Args:
        pace: of the run; takes the numbers.
        quiet: shows nothing, as all but one of several processes should.
    """

    def __init__(self, pace: Pace, *, quiet: bool = False) -> None:
        self._pace = pace
        self._quiet = quiet
        self._bar: Any = None
        self._told = -_SECONDS_BETWEEN_LINES

    @contextlib.contextmanager
    def shown(self, step: int) -> Iterator[None]:
        """Shows the updates until the context ends.

        Args:
            step: the last one that was made before.
        """
        if self._quiet or not sys.stderr.isatty():
            yield
            return
        with tqdm(
            total=self._pace.steps,
            initial=step,
            desc="training  ",
            bar_format=_BAR,
            file=sys.stderr,
            dynamic_ncols=True,
        ) as self._bar:
            yield

    def advance(self, step: int, values: Mapping[str, Any]) -> None:
        """An update was made.

        Args:
            step: which.
            values: its numbers, as the loop reports them.
        """
        pace = self._pace
        pace.add(step, values)
        text = (
            f"loss {pace.loss:.4f}, {pace.samples_per_second:.3g} samples/s, "
            f"{pace.waiting:.0%} waiting for data, {describe_seconds(pace.seconds_left)} left"
        )
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(1)
            return
        now = time.monotonic()
        if self._quiet or (step < pace.steps and now - self._told < _SECONDS_BETWEEN_LINES):
            return
        self._told = now
        say(f"step {step} of {pace.steps}: {text}")
