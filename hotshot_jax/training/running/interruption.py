"""Stopping between two steps when a signal asks for it, with a checkpoint instead of a loss."""

import contextlib
import signal
import time
import types
from collections.abc import Iterator

import jax

from hotshot_jax.parallel.hosts import start_agreeing_on_stops
from hotshot_jax.signals import STOPPING, heard_again, heard_too_early

# A supervisor may signal a process and its whole group at once; that is one wish, not two.
_REPEATED_WITHIN_SECONDS = 0.5


class Interrupted(KeyboardInterrupt):
    """Training stopped because of a signal.

    Attributes:
        number: of the signal.
        outcome: what became of the run, for the message; None where it was not saved.
    """

    def __init__(self, number: int, outcome: str | None = None):
        super().__init__(number)
        self.number = number
        self.outcome = outcome


class StopRequest:
    """Whether a signal has asked to stop.

    Attributes:
        number: of the signal that did; None so far.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self._at = 0.0

    def asked(self, step: int) -> bool:
        """Whether to stop before a step; several processes get the same answer.

        They have to ask before every step. What stops them all is a SIGTERM to any of them.
        """
        if self.number is None and jax.process_count() > 1:
            from jax.experimental import multihost_utils

            if multihost_utils.reached_preemption_sync_point(step):
                self.number = signal.SIGTERM
        return self.number is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Takes SIGINT and SIGTERM as requests; a second one interrupts at once, unsaved.

        Among several processes JAX takes SIGTERM, and tells the others. It does so from here on
        only: before, nobody would ask it, and the signal would be lost.
        """
        if jax.process_count() > 1:
            heard = signal.getsignal(signal.SIGTERM)
            start_agreeing_on_stops()
            yield
            signal.signal(signal.SIGTERM, heard)
            return
        previous = {number: signal.getsignal(number) for number in STOPPING}

        def note(number: int, frame: types.FrameType | None) -> None:
            now = time.monotonic()
            if self.number is None:
                self.number, self._at = number, now
            elif now - self._at > _REPEATED_WITHIN_SECONDS and not heard_too_early(number, frame):
                raise Interrupted(number)

        for number in STOPPING:
            signal.signal(number, note)
        try:
            with heard_again(Interrupted, lambda: None):
                yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
