import json
import sys

import pytest
import yaml

from hotshot_jax.files.parsed import ParseError, parse_json, parse_yaml
from hotshot_jax.files.plain_file import MOST_DEPTH, MOST_DIGITS

VALUES = {"a": [1, 2.5, None, True, "é"], "b": {"c": -(2**64), "d": 10**30}, "e": []}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def test_values_come_as_the_libraries_read_them() -> None:
    assert parse_json(json.dumps(VALUES)) == VALUES
    assert parse_json(json.dumps(VALUES).encode()) == VALUES
    text = yaml.safe_dump(VALUES)
    assert parse_yaml(text) == VALUES
    assert parse_yaml("a: &x {b: 1}\nc: {<<: *x, d: 0x1F}") == {
        "a": {"b": 1},
        "c": {"b": 1, "d": 31},
    }


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
def test_depth_and_digits_up_to_the_limits_are_read(parse) -> None:
    assert parse(nested(MOST_DEPTH))
    assert parse("9" * MOST_DIGITS) == 10**MOST_DIGITS - 1


REFUSED_BY_BOTH = {
    "one level too many": (nested(MOST_DEPTH + 1), "nested more than"),
    "hundreds of levels": (nested(500), "nested"),
    "thousands of levels": (nested(50_000), "nested too deeply"),
    "one digit too many": ("1" + "0" * MOST_DIGITS, "digits"),
    "more digits than Python reads": ("9" * 5000, "digits"),
    "the same below zero": ('{"a": [-' + "9" * 5000 + "]}", "digits"),
    "no text of the kind": ('{"a": ', "not valid"),
}


@pytest.mark.parametrize("parse", [parse_json, parse_yaml])
@pytest.mark.parametrize("case", REFUSED_BY_BOTH)
def test_what_is_beyond_the_limits_is_refused(parse, case) -> None:
    text, expected = REFUSED_BY_BOTH[case]
    with pytest.raises(ParseError, match=expected) as caught:
        parse(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "text", ['{"a": 1, "a": 2}', '{"b": {"a": 1, "a": 2}}', '[{"a": 1, "b": 1, "a": 1}]']
)
def test_a_key_named_twice_is_refused(text) -> None:
    with pytest.raises(ParseError, match="names 'a' twice"):
        parse_json(text)


def test_json_that_is_no_utf8_is_refused() -> None:
    with pytest.raises(ParseError, match=r"not UTF-8 text \(byte 6\)"):
        parse_json(b'{"a":"\xff"}')


def test_millions_of_values_are_refused_before_they_are_made() -> None:
    with pytest.raises(ParseError, match="too many values"):
        parse_json("[" + "0," * 4_000_000 + "0]")


YAML = {
    "a hexadecimal number": "0x" + "f" * 5000,
    "a binary number": "0b" + "1" * 5000,
    "a number in base 60": ":".join(["59"] * 500),
    "a date that is none": "2001-99-99",
    "a number without digits": "0x_",
    "itself inside": "&a [*a]",
    "a billion laughs": "a0: &a0 [x, x]\n"
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)),
    "Python": "!!python/object/apply:os.system [echo]",
    "a key that cannot be one": "? {a: b}\n: c",
    "two documents": "a: 1\n---\na: 2",
    "a control character": "a: \x07",
    "too much": "a: b\n" * 30_000,
    "a binary that is none": "!!binary é",
}


@pytest.mark.parametrize("case", YAML)
def test_yaml_of_every_evil_is_refused(case) -> None:
    with pytest.raises(ParseError):
        parse_yaml(YAML[case])


def test_the_limit_of_digits_is_below_that_of_python() -> None:
    assert sys.get_int_max_str_digits() > MOST_DIGITS
    assert float("9" * MOST_DIGITS) < float("inf")
