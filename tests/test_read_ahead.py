"""Items read ahead: in order, never too far, and not waited for once nobody takes them."""

import threading

import pytest

from hotshot_jax.convert.load import read_ahead


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("depth", [0, 1, 4, 30])
@pytest.mark.parametrize("count", [0, 1, 20])
def test_items_come_in_order_and_no_further_ahead_than_asked(
    count: int, depth: int, threads: int
) -> None:
    started: list[int] = []
    given = 0

    def read(key: int) -> int:
        started.append(key)
        return key * key

    for number, item in enumerate(read_ahead(read, range(count), depth=depth, threads=threads)):
        assert item == number * number
        given += 1
        assert len(started) <= given + depth
    assert given == count
    assert sorted(started) == list(range(count))


def test_an_error_is_raised_at_its_turn() -> None:
    items = read_ahead(lambda key: 1 // key, [1, 1, 0, 1], depth=3)
    assert [next(items), next(items)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_whoever_leaves_waits_for_nothing() -> None:
    blocked, reading = threading.Event(), threading.Event()
    read: list[int] = []

    def wait(key: int) -> int:
        if key:
            reading.set()
            blocked.wait(60)
        read.append(key)
        return key

    items = iter(read_ahead(wait, range(4), depth=2))
    assert next(items) == 0
    assert reading.wait(60)
    items.close()
    assert read == [0]
    blocked.set()
