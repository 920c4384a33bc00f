"""Jobs that wait, and those that are being made, as they stand in memory."""

import dataclasses
import threading
from collections.abc import Callable, Iterable
from typing import Any

from hotshot_jax.server.job import Job
from hotshot_jax.server.planning import PlannedClip
from hotshot_jax.server.progress import WatchedProgress

_GATHERED_WITHIN_SECONDS = 0.05


@dataclasses.dataclass(eq=False)
class Live:
    """A job that has not come to its end.

    Attributes:
        job: as it was accepted.
        plan: what it comes to; None until it is its turn, where that takes memory.
        shared: what others may have in common with it to be made with it; None for nothing.
        cancelled: whether somebody said that it is not wanted any more.
        unkept: whether nothing of it is to be kept after its end.
        progress: where it is, once it is begun.
        row: which clip of its batch it is.
        handed_over: whether its frames are made.
        failure: code and message of what failed, where the table could not be told yet.
    """

    job: Job
    plan: PlannedClip | None = None
    shared: Any = None
    cancelled: bool = False
    unkept: bool = False
    progress: WatchedProgress | None = None
    row: int = 0
    handed_over: bool = False
    failure: tuple[str, str] | None = None

    @property
    def id(self) -> str:
        """Of the job."""
        return self.job.id


class Waiting:
    """The queue, in order of arrival. All threads use it."""

    def __init__(self) -> None:
        self._jobs: list[Live] = []
        self._changed = threading.Condition()
        self._closed = False
        self._making = 0
        self._alone = False

    def __len__(self) -> int:
        return len(self._jobs)

    def add(self, live: Live) -> None:
        """Puts a job at the end."""
        with self._changed:
            self._jobs.append(live)
            self._changed.notify()

    def put_back(self, jobs: Iterable[Live]) -> None:
        """Puts jobs back in front of all others."""
        with self._changed:
            self._jobs[:0] = jobs
            self._changed.notify()

    def remove(self, live: Live) -> bool:
        """Takes a job out; whether it was there."""
        with self._changed:
            if live not in self._jobs:
                return False
            self._jobs.remove(live)
            return True

    def place(self, live: Live) -> int | None:
        """How many jobs are before one that waits; None if it does not wait."""
        with self._changed:
            return self._jobs.index(live) if live in self._jobs else None

    def close(self) -> None:
        """Gives nothing any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self, most: int, begin: Callable[[list[Live]], None]) -> list[Live]:
        """The job that has waited for longest, and others that can be made with it.

        Waits for one, and counts as making it until `made` is called. What was begun before, when
        the server ended, is made alone: it may be what ended it.

        Args:
            most: how many may be made together.
            begin: called with them before anybody can see that they do not wait any more.

        Returns:
            The jobs; none when the queue is closed.
        """
        with self._changed:
            self._changed.wait_for(self._ready)
            if most > 1 and not self._closed and self._jobs[0].shared is not None:
                # What is sent at the same moment arrives one after the other.
                self._changed.wait_for(
                    lambda: len(self._jobs) >= most or self._closed, _GATHERED_WITHIN_SECONDS
                )
                # All of it may have been cancelled meanwhile.
                self._changed.wait_for(self._ready)
            if self._closed:
                return []
            first = self._jobs[0]
            taken = [first]
            if first.shared is not None and not first.job.tries:
                taken += [
                    each
                    for each in self._jobs[1:]
                    if each.shared == first.shared and not each.job.tries
                ]
            taken = taken[:most]
            self._jobs = [each for each in self._jobs if each not in taken]
            self._making += 1
            self._alone = bool(first.job.tries)
            begin(taken)
            return taken

    def made(self) -> None:
        """Tells that what `take` gave is not made any more."""
        with self._changed:
            self._making -= 1
            self._alone = False
            self._changed.notify_all()

    def _ready(self) -> bool:
        if self._closed:
            return True
        if not self._jobs or self._alone:
            return False
        return not (self._making and self._jobs[0].job.tries)
