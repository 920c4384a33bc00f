"""Making the clips of many items at the same time, in the order of the items."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Final

from hotshot_jax.data.origins import ClipRecord, Origin
from hotshot_jax.errors import HotshotError

# Starting processes takes about as long.
_SECONDS_ALONE: Final = 0.5
_AHEAD: Final = 2

Made = list[ClipRecord] | str
"""The clips of an item, or why there are none."""


def made_in_order(origin: Origin, items: Sequence[str], cores: int | None = None) -> Iterator[Made]:
    """The clips of all items, on all cores.

    Processes are started once it shows that the work takes longer than that. A program that cannot
    be started a second time, such as one from standard input, makes all clips by itself.

    Args:
        origin: of the items.
        items: in the order in which their clips are wanted.
        cores: how many to use; None for all that this process may use.
    """
    cores = cores or usable_cores()
    began = time.monotonic()
    done = 0
    while done < len(items):
        if cores > 1 and len(items) - done > 1 and time.monotonic() - began > _SECONDS_ALONE:
            for made in _in_processes(origin, items[done:], cores):
                yield made
                done += 1
            # Whatever is left, the processes could not be started.
            cores = 1
            continue
        yield make(origin, items[done])
        done += 1


def usable_cores() -> int:
    """How many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def make(origin: Origin, item: str) -> Made:
    """The clips of one item."""
    try:
        return origin.clips(item)
    except HotshotError as error:
        return str(error)


def _in_processes(origin: Origin, items: Sequence[str], cores: int) -> Iterator[Made]:
    """The clips of the first of the items, of all unless processes end by themselves."""
    pool = ProcessPoolExecutor(
        min(cores, len(items)),
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(origin,),
    )
    pending: deque[Future[Made]] = deque()
    try:
        for item in items:
            pending.append(pool.submit(_make, item))
            if len(pending) > _AHEAD * cores:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool:
        return
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


# In a process that was started for it: sent once, since an origin may list a million items.
_origin: Origin | None = None


def _begin(origin: Origin) -> None:
    global _origin
    _origin = origin
    # Ctrl-C is for the process that waits for this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _make(item: str) -> Made:
    assert _origin is not None
    return make(_origin, item)
