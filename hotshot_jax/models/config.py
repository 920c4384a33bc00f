"""Reading a `config.json` into a frozen dataclass, strictly.

A value that a model does not implement has to be an error: ignoring it gives noise, not a crash.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from hotshot_jax.errors import HotshotError

Config = TypeVar("Config")

# Written by the libraries about themselves; they say nothing about the architecture.
_BOOKKEEPING = frozenset(
    {"_class_name", "_diffusers_version", "_name_or_path", "_commit_hash", "transformers_version"}
)


def read_config(
    config_class: type[Config],
    values: Mapping[str, Any],
    *,
    where: str,
    supported: Mapping[str, Iterable[Any]],
    irrelevant: Iterable[str] = (),
) -> Config:
    """Builds `config_class` from the parsed content of a `config.json`.

    Args:
        config_class: a frozen dataclass; its fields are the keys that shape the model.
        values: the parsed JSON object.
        where: what the configuration belongs to, for messages ("unet/config.json").
        supported: for keys that the model implements in one form only, the values that mean it.
        irrelevant: keys that have no effect on the computation (dropout rates, initialisers).

    Raises:
        HotshotError: a required key is missing, a key has a value of another type or outside
            `supported`, or a key is unknown and not null.
    """
    fields = {field.name: field for field in dataclasses.fields(config_class)}  # type: ignore[arg-type]
    skipped = _BOOKKEEPING.union(irrelevant)
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key in fields:
            _check_type(key, value, fields[key].type, where)
            arguments[key] = tuple(value) if isinstance(value, list) else value
        elif key in supported:
            allowed = list(supported[key])
            if value not in allowed:
                expected = " or ".join(repr(choice) for choice in allowed)
                raise HotshotError(
                    f"{where}: {key} = {value!r} is not supported (expected {expected})."
                )
        elif key not in skipped and value is not None:
            raise HotshotError(
                f"{where}: unknown key {key} = {value!r}; this model would compute something else."
            )
    missing = [
        name
        for name, field in fields.items()
        if name not in arguments
        and field.default is dataclasses.MISSING
        and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise HotshotError(f"{where}: missing {', '.join(missing)}; the file is incomplete.")
    return config_class(**arguments)


def _check_type(key: str, value: Any, expected: Any, where: str) -> None:
    # Fields of other types (lists, optional values) have checks of their own.
    allowed: dict[Any, tuple[type, ...]] = {int: (int,), float: (int, float), str: (str,)}
    types = allowed.get(expected)
    if types is not None and (not isinstance(value, types) or isinstance(value, bool)):
        raise HotshotError(
            f"{where}: {key} = {value!r}; expected a value of type {expected.__name__}."
        )


def per_block(
    value: Any, blocks: int, *, key: str, where: str, minimum: int = 1
) -> tuple[int, ...]:
    """Spreads a scalar over all blocks, or checks that a list has one entry for each.

    Raises:
        HotshotError: the list has another length, or an entry is not an integer from `minimum` on.
    """
    entries = tuple(value) if isinstance(value, tuple | list) else (value,) * blocks
    if len(entries) != blocks:
        raise HotshotError(f"{where}: {key} has {len(entries)} entries, expected {blocks}.")
    for entry in entries:
        if not isinstance(entry, int) or isinstance(entry, bool) or entry < minimum:
            raise HotshotError(
                f"{where}: {key} = {value!r}; expected whole numbers of at least {minimum}."
            )
    return entries
