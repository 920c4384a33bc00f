"""Values about steps, as command lines and files write them."""

import argparse
from typing import Any

import pytest

from hotshot_jax.cli.by_step import cache_interval, guidance_interval


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("3", 3),
        (3, 3),
        (" 0, 1 ,5", (0, 1, 5)),
        ("0,", (0,)),
        ([0, 1, 5], (0, 1, 5)),
        ([0], (0,)),
        ("-1", -1),
    ],
)
def test_intervals(given: Any, expected: Any) -> None:
    assert cache_interval(given) == expected


@pytest.mark.parametrize("given", ["0:0.8", " 0 : 0.8 ", [0, 0.8], (0.0, 0.8), ["0", "0.8"]])
def test_fractions(given: Any) -> None:
    assert guidance_interval(given) == (0.0, 0.8)


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (cache_interval, "", "expected a number of steps"),
        (cache_interval, "0,,2", "expected a number of steps"),
        (cache_interval, "2.0", "expected a number of steps"),
        (cache_interval, 2.0, "expected a number of steps"),
        (cache_interval, True, "expected a number of steps"),
        (cache_interval, [0, 1.0], "expected a number of steps"),
        (cache_interval, [[0]], "expected a number of steps"),
        (cache_interval, {0: 1}, "expected a number of steps"),
        (guidance_interval, "0.8", "expected LOW:HIGH, such as 0:0.8"),
        (guidance_interval, 0.8, "in quotes, or a list of two numbers"),
        (guidance_interval, "0:0.5:1", "expected LOW:HIGH"),
        (guidance_interval, "a:b", "expected two numbers"),
        (guidance_interval, ":", "expected two numbers"),
        (guidance_interval, [0, True], "expected two numbers"),
        (guidance_interval, [0, None], "expected two numbers"),
        (guidance_interval, [0.5], "expected LOW:HIGH"),
        (guidance_interval, {0: 1}, "expected LOW:HIGH"),
    ],
)
def test_what_is_neither_is_refused(read: Any, given: Any, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(given)
