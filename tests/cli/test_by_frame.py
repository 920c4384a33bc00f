"""Values that may differ by frame, as command lines and files write them."""

import argparse
from typing import Any

import pytest

from hotshot_jax.cli.by_frame import number_by_block, number_by_frame, text_at_frame


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("5", 5.0),
        (7, 7.0),
        ("0:5,16:8", {0: 5.0, 16: 8.0}),
        (" 0 : 5 , 16 : 8.5 ", {0: 5.0, 16: 8.5}),
        ({"0": 5, 16: "8"}, {0: 5.0, 16: 8.0}),
        ("3:1e-1", {3: 0.1}),
    ],
)
def test_numbers(given: Any, expected: Any) -> None:
    assert number_by_frame(given) == expected
    assert number_by_block(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("down1=0.5", {"down1": 0.5}),
        ("0.8,down1=0.5", {"all": 0.8, "down1": 0.5}),
        ("0.8,down1=0.5,up2=0:1,7:0.5", {"all": 0.8, "down1": 0.5, "up2": {0: 1.0, 7: 0.5}}),
        ("0:1,7:0.5,up0=2", {"all": {0: 1.0, 7: 0.5}, "up0": 2.0}),
        ({"down1": {"0": 1, "7": 2}}, {"down1": {0: 1.0, 7: 2.0}}),
    ],
)
def test_numbers_by_block(given: Any, expected: Any) -> None:
    assert number_by_block(given) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("16: a blue star", (16, "a blue star")),
        ("0:", (0, "")),
        ("3: a clock at 12:30", (3, "a clock at 12:30")),
        ([4, "a"], (4, "a")),
        ("-1: a", (-1, "a")),
    ],
)
def test_texts(given: Any, expected: Any) -> None:
    assert text_at_frame(given) == expected


@pytest.mark.parametrize(
    ("read", "given", "message"),
    [
        (number_by_frame, "five", "expected a number"),
        (number_by_frame, "0:5,0:6", "frame 0 is given twice"),
        (number_by_frame, "a:5", "no number of a frame"),
        (number_by_frame, "0:5,6", "expected a number"),
        (number_by_frame, True, "expected a number"),
        (number_by_frame, [1, 2], "expected|no number of"),
        (number_by_block, "down1=1,down1=2", "down1 is given twice"),
        (number_by_block, "down1=", "expected a number"),
        (number_by_block, "all=0.5,0.8", "all has two values"),
        (text_at_frame, "a blue star", "FRAME: PROMPT"),
        (text_at_frame, "first: a", "no number of a frame"),
        (text_at_frame, [1, 2, 3], "FRAME: PROMPT"),
    ],
)
def test_what_is_refused(read: Any, given: Any, message: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match=message):
        read(given)
