"""Taking items from the host before they are needed, in other threads."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Key = TypeVar("Key")
Item = TypeVar("Item")


def read_ahead(
    read: Callable[[Key], Item], keys: Iterable[Key], *, depth: int, threads: int = 1
) -> Iterator[Item]:
    """The items of some keys, in their order, each read before its turn.

    Args:
        read: makes the item of a key; called in other threads. What it raises is raised here, at
            the item's turn.
        keys: of the items.
        depth: how many items may wait, or be on their way, beside the one that was given.
        threads: how many read at the same time.
    """
    pool = ThreadPoolExecutor(threads)
    pending: deque[Future[Item]] = deque()
    try:
        for key in keys:
            pending.append(pool.submit(read, key))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Not to wait for items that nobody will take.
        pool.shutdown(wait=False, cancel_futures=True)
