"""Making the clips of many items at the same time, in the order of the items."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Final

from hotshot_jax.data.origins import ClipRecord, Origin
from hotshot_jax.errors import HotshotError

# Less is not worth starting processes for.
_SECONDS_ALONE: Final = 0.4
# Items that are being made or wait for their turn, for each core.
_AHEAD: Final = 3

Made = list[ClipRecord] | str
"""The clips of an item, or why there are none."""


def made_in_order(origin: Origin, items: Sequence[str], cores: int | None = None) -> Iterator[Made]:
    """The clips of all items, on all cores.

    Args:
        origin: of the items.
        items: in the order in which their clips are wanted.
        cores: how many to use; None for all that this process may use.
    """
    cores = cores or usable_cores()
    began = time.monotonic()
    for done, item in enumerate(items):
        if cores > 1 and len(items) - done > 1 and time.monotonic() - began > _SECONDS_ALONE:
            yield from made_together(origin, items[done:], cores)
            return
        yield make(origin, item)


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


@dataclass
class _Turn:
    """An item on its way."""

    item: str
    future: Future[Made] | None
    made: Made | None = None


def made_together(origin: Origin, items: Sequence[str], cores: int) -> Iterator[Made]:
    """The clips of all items by this process and, for each further core, another one.

    What others cannot do, this one does: a program that cannot be started a second time, such as
    one from standard input, makes all clips by itself.
    """
    before = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(cores, len(items)) - 1,
        multiprocessing.get_context("spawn"),
        initializer=_begin,
        initargs=(origin,),
    )
    left = deque(items)
    turns: deque[_Turn] = deque()
    try:
        while left or turns:
            while left and len(turns) < _AHEAD * cores:
                turns.append(_submitted(pool, left.popleft()))
            _help(origin, turns)
            yield _result(origin, turns.popleft())
    except BaseException:
        # Nobody will take what is still being made.
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submitted(pool: ProcessPoolExecutor, item: str) -> _Turn:
    try:
        return _Turn(item, pool.submit(_make, item))
    except BrokenProcessPool:
        return _Turn(item, None)


def _help(origin: Origin, turns: deque[_Turn]) -> None:
    """Makes items here, the last first, until the first one is made or all are in hand."""
    first = turns[0]
    for turn in reversed(turns):
        if first.future is None or first.future.done() or first.made is not None:
            return
        if turn.future is not None and turn.future.cancel():
            turn.future, turn.made = None, make(origin, turn.item)


def _result(origin: Origin, turn: _Turn) -> Made:
    if turn.made is not None:
        return turn.made
    try:
        return make(origin, turn.item) if turn.future is None else turn.future.result()
    except BrokenProcessPool:
        return make(origin, turn.item)


# In a process that was started for it: sent once, since an origin may list a million items.
_origin: Origin | None = None


def _begin(origin: Origin) -> None:
    global _origin
    _origin = origin
    # Ctrl-C ends it without a word: the process that waits for it says what there is to say.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _make(item: str) -> Made:
    assert _origin is not None
    return make(_origin, item)
