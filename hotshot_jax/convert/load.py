"""Filling a model from PyTorch tensors: every tensor in one place, every parameter filled once."""

import dataclasses
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Generic, TypeVar, cast

import jax
import numpy as np
from flax import nnx

from hotshot_jax.convert.tensors.half_casts import to_dtype
from hotshot_jax.convert.tensors.rules import (
    POSITIONAL_TABLE,
    Path,
    Slot,
    current_attention_name,
    flat_parameters,
    is_spare,
    torch_slots,
)
from hotshot_jax.convert.tensors.tensor_source import LazyTensor, TensorSource, check_finite
from hotshot_jax.errors import HotshotError
from hotshot_jax.models.layers.embeddings import positional_encoding
from hotshot_jax.models.layers.layers import NoValues
from hotshot_jax.models.unet.encoder_config import TemporalShape

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


Module = TypeVar("Module", bound=nnx.Module)
Progress = Callable[[int], object]
"""Called with the number of bytes of each parameter that has been placed."""

# Rows of a matrix that are transposed together.
_STRIP = 32
# Tensors read, checked, merged and transposed by other threads while a parameter is placed: enough
# to keep the disk busy, few enough that they are little beside the model.
_READ_AHEAD = 8
_READERS = 3
_LISTED = 8


def abstract(build: Callable[[nnx.Rngs], Module]) -> Module:
    """The module that `build` makes, with shapes in place of arrays."""
    return nnx.eval_shape(lambda: build(cast(nnx.Rngs, NoValues())))


@dataclasses.dataclass(frozen=True)
class Match(Generic[Module]):
    """A module and the tensors that will fill it, found to fit each other; nothing is read yet.

    Attributes:
        module: with shapes in place of arrays.
        slots: where each tensor goes, by PyTorch's names of today.
        names: the tensor's name in the source, by the slot's name.
    """

    module: Module
    slots: Mapping[str, Slot]
    names: Mapping[str, str]


def match_module(
    build: Callable[[nnx.Rngs], Module], source: TensorSource, *, where: str
) -> Match[Module]:
    """Finds the tensors that will fill a module, without reading them.

    Args:
        build: makes the module from random streams; only its shapes are used.
        source: PyTorch's tensors.
        where: what is being loaded, for messages.

    Raises:
        HotshotError: lists every missing, unused and wrong-shaped tensor, or names a positional
            table that is not the expected one.
    """
    module = abstract(build)
    slots = torch_slots(module)
    return Match(module, slots, _match_names(slots, source, where, table_length(module)))


def fill_module(
    match: Match[Module],
    source: TensorSource,
    *,
    dtype: Any,
    shardings: Mapping[Path, jax.sharding.Sharding] | jax.sharding.Sharding | None = None,
    progress: Progress = lambda size: None,
) -> Module:
    """Fills a module from `source`, one parameter at a time.

    Args:
        match: what `match_module` found for this source.
        source: PyTorch's tensors.
        dtype: dtype in which parameters are stored.
        shardings: where each parameter goes: by path, or one for all; None is the default device.
        progress: called after each parameter.

    Raises:
        HotshotError: names a tensor with values that are not finite.
    """
    filled = read_parameters(match, source, dtype=dtype, shardings=shardings, progress=progress)
    return with_parameters(match.module, filled)


def read_parameters(
    match: Match[Any],
    source: TensorSource,
    *,
    dtype: Any,
    shardings: Mapping[Path, jax.sharding.Sharding] | jax.sharding.Sharding | None = None,
    progress: Progress = lambda size: None,
    only: Container[Path] | None = None,
) -> dict[Path, jax.Array]:
    """The parameters of a module from `source`, one at a time, by path.

    Args:
        match: what `match_module` found for this source.
        source: and the further arguments are those of `fill_module`.
        dtype: see there.
        shardings: see there.
        progress: see there.
        only: which parameters to read; None for all.

    Raises:
        HotshotError: names a tensor with values that are not finite.
    """
    parameters = flat_parameters(match.module)
    slots: dict[Path, list[Slot]] = {
        path: [] for path in parameters if only is None or path in only
    }
    for slot in match.slots.values():
        if slot.path in slots:
            slots[slot.path].append(slot)

    def targets() -> Iterator[tuple[Slot, np.ndarray]]:
        for path, parts in slots.items():
            value = np.empty(parameters[path].shape, dtype)
            for slot in parts:
                yield slot, value

    def fill(target: tuple[Slot, np.ndarray]) -> np.ndarray:
        slot, value = target
        lazy = source[match.names[slot.name]]
        part = value if slot.layer is None else value[slot.layer]
        _copy(part, slot.to_flax(_read(lazy, slot, dtype)))
        lazy.release()
        return value

    values = read_ahead(fill, targets(), depth=_READ_AHEAD, threads=_READERS)
    filled: dict[Path, jax.Array] = {}
    for path, parts in slots.items():
        # One array for all parts of a parameter; with the last of them it is full.
        value = [next(values) for _ in parts][-1]
        sharding = shardings.get(path) if isinstance(shardings, Mapping) else shardings
        filled[path] = _place(value, sharding)
        progress(value.nbytes)
    return filled


def with_parameters(module: Module, values: Mapping[Path, Any]) -> Module:
    """A copy of a (concrete or abstract) module with other parameter values, by path."""
    graph, state = nnx.split(module)
    state = nnx.from_flat_state(
        [(path, variable.replace(values[path])) for path, variable in nnx.to_flat_state(state)]
    )
    return nnx.merge(graph, state)


def _match_names(
    slots: Mapping[str, Slot], source: TensorSource, where: str, positions: int
) -> dict[str, str]:
    """Finds the tensor of `source` for each slot.

    Returns:
        The name in `source` by the slot's name.

    Raises:
        HotshotError: lists every missing, unused and wrong-shaped tensor together, or says that a
            positional table differs from the computed one.
    """
    names: dict[str, str] = {}
    unused, wrong = [], []
    for name, tensor in source.items():
        target = current_name(name, slots)
        if target in slots and target not in names:
            names[target] = name
            shape = tensor.shape
            if not _same_shape(shape, slots[target].shape):
                wrong.append(f"{name} {list(shape)}, expected {list(slots[target].shape)}")
        elif name.endswith(POSITIONAL_TABLE):
            check_positional_table(tensor, positions)
        elif not is_spare(name):
            unused.append(name)
    missing = [name for name in slots if name not in names]
    problems = [
        f"{len(group)} {kind}: {_some(group)}"
        for kind, group in (
            ("missing", missing),
            ("not part of the model", unused),
            ("of the wrong shape", wrong),
        )
        if group
    ]
    if problems:
        raise HotshotError(
            f"{where}: the tensors do not fit the model that config.json describes; both have to "
            f"be of one checkpoint.\n  {'; '.join(problems)}"
        )
    return names


def table_length(module: nnx.Module) -> int:
    """Entries of the positional tables of a model; the published number where it has none."""
    config = getattr(module, "config", None)
    return getattr(config, "temporal_positions", TemporalShape.positions)


def check_positional_table(tensor: LazyTensor, positions: int) -> None:
    """Compares a stored positional table with the computed one.

    Args:
        tensor: the table, `[1, positions, channels]`.
        positions: its length in the model.

    Raises:
        HotshotError: the table has another length or other values; the model computes its own, so
            the checkpoint would give something else here.
    """
    where = f"{tensor.file}: {tensor.name}"
    if len(tensor.shape) != 3 or tensor.shape[:2] != (1, positions):
        raise HotshotError(
            f"{where}: a positional table of shape {list(tensor.shape)}; the model's is "
            f"[1, {positions}, channels]. These are temporal layers of another model."
        )
    stored = tensor.read()[0].astype(np.float32)
    # A stored table may have been rounded to a half precision: 2^-8 covers bfloat16 at 1.
    error = float(np.abs(stored - positional_encoding(*stored.shape)).max())
    if not error <= 2.0**-8:
        raise HotshotError(
            f"{where}: the positional table differs from the sinusoids of Hotshot-XL by "
            f"{error:.3g}. These are temporal layers of another model."
        )


def _read(lazy: LazyTensor, slot: Slot, dtype: Any) -> np.ndarray:
    tensor = lazy.read_for(dtype)
    check_finite(f"{lazy.file}: {lazy.name}", tensor)
    return to_dtype(tensor.reshape(slot.shape), dtype)


def _copy(target: np.ndarray, view: np.ndarray) -> None:
    # NumPy copies a transposed view along the target's order, jumping by a row of the source for
    # every value; strips of a few source rows stay in the cache, which is 2 to 3 times as fast.
    rows = view.shape[-1] if view.ndim else 0
    if rows > _STRIP and view.strides[-1] == max(view.strides):
        for start in range(0, rows, _STRIP):
            target[..., start : start + _STRIP] = view[..., start : start + _STRIP]
    else:
        target[...] = view


def _place(value: np.ndarray, sharding: jax.sharding.Sharding | None) -> jax.Array:
    if sharding is None:
        # Placed on a named device, as restored checkpoints are: a program for arrays that may still
        # move is another program to the compilation cache.
        return jax.device_put(value, jax.local_devices()[0])
    return jax.make_array_from_callback(value.shape, sharding, lambda index: value[index])


def current_name(name: str, slots: Container[str]) -> str:
    """The name that a stored tensor has in the model, where older or newer files spell it so.

    Args:
        name: as it is stored.
        slots: the names that the model has.
    """
    name = current_attention_name(name)
    # transformers leaves this prefix out since 5.0.
    prefixed = f"text_model.{name}"
    return prefixed if name not in slots and prefixed in slots else name


def _same_shape(shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
    # The VAE's attention was stored as 1 x 1 convolutions by the original SDXL code.
    return shape == expected or (len(expected) == 2 and shape == (*expected, 1, 1))


def _some(names: list[str]) -> str:
    more = f", and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
