"""Damage of every kind, decided by a random generator alone."""

import json
import math
import random
from typing import Any

# What parsers stumble over, as it stands in a text.
_EVIL_TEXT = [
    "9" * 5000, "-1", "0", "1e999", "NaN", "null", "true", "[]", "{}", '""', '"x"', "[[[[]]]]",
    "[" * 3000, "{" * 3000, '{"a":' * 3000, '"\\ud800"', '"\\u0000"', "\x1b[31m", "\0", "\ufeff",
    "0x" + "f" * 5000, "1:" * 2000 + "1", "&a [*a]", "!!python/none", "((((" * 200, "\\", "é" * 500,
    "18446744073709551616", "1" * 100, "../../../../etc/passwd", "/dev/zero", "\r\n", ": ", "- ",
]  # fmt: skip
_EVIL_VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 7, 1000, 2**31, 2**63, 2**64, 10**18, 10**300, -(10**18),
    0.5, -1.5, 1e308, float("nan"), float("inf"), "", "x", "NaN", "\ud800", "\0", "\x1b[31m",
    "a" * 5000,
    [], {}, [[]], [1] * 70, [0], [-1], [2**40], [None], ["x"], {"a": {}}, {"": ""}, [[1, 2], [3]],
]  # fmt: skip
_EVIL_BYTES = [
    b"", b"\0" * 8, b"\xff" * 8, b"\x80\x02", b"GIF89a", b"PK\x03\x04", b"\x7f" * 4,
    b"\xff\xd8\xff",
    (2**31 - 1).to_bytes(4, "big"), (2**31).to_bytes(4, "little"), (2**63).to_bytes(8, "little"),
]  # fmt: skip


def mutate(content: bytes, chance: random.Random) -> bytes:
    """Damaged bytes; what is JSON mostly stays JSON of another meaning."""
    if chance.random() < 0.6:
        damaged = _with_another_meaning(content, chance)
        if damaged is not None:
            return damaged
    data = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 2, 4, 16))):
        _damage(data, chance)
    return bytes(data)


def _with_another_meaning(content: bytes, chance: random.Random) -> bytes | None:
    """JSON, alone or as the header of a .safetensors file, with other values."""
    length = int.from_bytes(content[:8], "little")
    is_header = 8 < length <= len(content) - 8 and content[8:9] == b"{"
    text = content[8 : 8 + length] if is_header else content
    try:
        value = json.loads(text)
    except ValueError:
        return None
    for _ in range(chance.choice((1, 1, 2, 5))):
        if is_header and isinstance(value, dict) and chance.random() < 0.4:
            _reshape(value, chance)
        else:
            value = _replace(value, chance)
    changed = json.dumps(value)
    if chance.random() < 0.2:
        # A number that Python's own writer would refuse.
        changed = changed.replace(str(chance.randrange(10)), chance.choice(_EVIL_TEXT), 1)
    encoded = changed.encode(errors="replace")
    return (
        len(encoded).to_bytes(8, "little") + encoded + content[8 + length :]
        if is_header
        else encoded
    )


def _reshape(header: dict[str, Any], chance: random.Random) -> None:
    """Gives a tensor another shape of as many values, another type, place or name."""
    names = [name for name, entry in header.items() if isinstance(entry, dict) and "shape" in entry]
    if not names:
        return
    one, other = chance.choice(names), chance.choice(names)
    entry, shape = header[one], header[one]["shape"]
    way = chance.randrange(5)
    if way == 0 and isinstance(shape, list) and all(isinstance(side, int) for side in shape):
        flat = math.prod(shape)
        entry["shape"] = chance.choice(
            ([flat], shape[::-1], [1, *shape], [*shape, 1, 1], [flat, 1], [1] * 70 + shape)
        )
    elif way == 1:
        entry["dtype"] = chance.choice(
            ("F32", "I32", "U32", "F64", "F16", "BF16", "F8_E4M3", "BOOL")
        )
    elif way == 2:
        entry["shape"], entry["data_offsets"] = [0, *shape], [0, 0]
    elif way == 3:
        header[one], header[other] = header[other], header[one]
    else:
        ending = chance.choice(
            ("hada_w1_a", "lokr_w1", "alpha", "dora_scale", "diff", "lora_up.weight")
        )
        header[one.rpartition(".")[0] + "." + ending] = header.pop(one)


def _replace(value: Any, chance: random.Random) -> Any:
    """The value with one of the values inside exchanged, removed, doubled or renamed."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        way = chance.random()
        changed = dict(value)
        if way < 0.1:
            del changed[key]
        elif way < 0.2:
            changed[str(chance.choice(_EVIL_VALUES))] = changed.pop(key)
        else:
            changed[key] = _replace(value[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        index = chance.randrange(len(value))
        way = chance.random()
        if way < 0.1:
            return value[:index] + value[index + 1 :]
        if way < 0.2:
            return value + [value[index]] * chance.choice((1, 3, 100))
        return [*value[:index], _replace(value[index], chance), *value[index + 1 :]]
    if isinstance(value, str) and chance.random() < 0.2:
        return value + chance.choice(_EVIL_TEXT)
    return chance.choice(_EVIL_VALUES)


def _damage(data: bytearray, chance: random.Random) -> None:
    # Most of what decides is at the beginning.
    end = len(data) if chance.random() < 0.5 else min(len(data), 200)
    place = chance.randrange(end) if end else 0
    size = chance.choice((1, 2, 4, 8, 64, 1024))
    way = chance.randrange(8)
    if way == 0 and data:
        data[place] ^= 1 << chance.randrange(8)
    elif way == 1:
        data[place : place + size] = chance.randbytes(size)
    elif way == 2:
        del data[place:]
    elif way == 3:
        del data[place : place + size]
    elif way == 4:
        data[place:place] = data[place : place + size] * chance.choice((1, 2, 50))
    elif way == 5:
        evil = chance.choice(_EVIL_BYTES)
        data[place : place + len(evil)] = evil
    elif way == 6:
        data[place:place] = chance.choice(_EVIL_TEXT).encode(errors="replace")
    else:
        data[place:place] = chance.choice(_EVIL_BYTES)
