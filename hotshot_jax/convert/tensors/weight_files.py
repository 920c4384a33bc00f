"""Which files of a component's folder are its weights.

Names only, so that the same choice is made for a folder on disk and for the listing of a Hub
repository before anything is downloaded.

A variant (``fp16``, ``non_ema``, ``bf16``) is spelled ``model.fp16.safetensors``. In shards it
stands on either side of the count (``model.fp16-00001-of-00002.safetensors``,
``model-00001-of-00002.fp16.safetensors``), in their index before or after ``index``
(``model.safetensors.index.fp16.json``, ``model.fp16.safetensors.index.json``). All of these exist.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

# In order of preference where a folder holds several.
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")

_STEM = rf"(?P<stem>{'|'.join(_STEMS)})"
_SHARD = re.compile(
    rf"{_STEM}(\.(?P<before>[\w-]+?))?-(?P<number>\d+)-of-(?P<count>\d+)"
    r"(\.(?P<after>[\w-]+))?\.safetensors"
)
_INDEX = re.compile(
    rf"{_STEM}(\.(?P<before>[\w-]+))?\.safetensors\.index(\.(?P<after>[\w-]+))?\.json"
)
_SINGLE = re.compile(rf"{_STEM}(\.(?P<before>[\w-]+))?\.safetensors")

# Tried in this order when neither the requested variant nor plain weights are there.
_OTHER_VARIANTS = ("fp16", "bf16", "fp32", "non_ema")

# Endings of weights that exist in published repositories and are not read, and what they are.
_UNREAD_ENDINGS = {
    ".bin": "PyTorch pickle",
    ".pt": "PyTorch pickle",
    ".pth": "PyTorch pickle",
    ".ckpt": "PyTorch pickle",
    ".pkl": "pickle",
    ".msgpack": "Flax",
    ".onnx": "ONNX",
    ".xml": "OpenVINO",
    ".gguf": "GGUF",
    ".h5": "TensorFlow",
}


@dataclass(frozen=True)
class WeightFiles:
    """One complete set of weight files in a component's folder.

    Attributes:
        stem: the part of the names that all have in common.
        variant: ``fp16`` and the like; None for weights without a variant.
        single: the one file, where the weights are in one.
        indexes: index files of the shards, in all spellings that are there.
        shards: the shards.
    """

    stem: str
    variant: str | None
    single: str | None
    indexes: tuple[str, ...]
    shards: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The files to have: the single file, or index and shards."""
        return (self.single,) if self.single is not None else self.indexes + self.shards


def find_weight_files(names: Iterable[str]) -> list[WeightFiles]:
    """Group the .safetensors weights of one folder into sets.

    Args:
        names: file names, without folders.

    Returns:
        The sets, in no particular order of variants. Other files are passed over.
    """
    singles: dict[tuple[str, str | None], str] = {}
    indexes: dict[tuple[str, str | None], list[str]] = {}
    shards: dict[tuple[str, str | None], list[str]] = {}
    for name in sorted(names):
        if match := _SHARD.fullmatch(name):
            shards.setdefault(_key(match), []).append(name)
        elif match := _INDEX.fullmatch(name):
            indexes.setdefault(_key(match), []).append(name)
        elif match := _SINGLE.fullmatch(name):
            singles[match["stem"], match["before"]] = name
    return [
        WeightFiles(*key, singles.get(key), tuple(indexes.get(key, ())), tuple(shards.get(key, ())))
        for key in dict.fromkeys([*singles, *indexes, *shards])
    ]


def choose_weight_files(found: list[WeightFiles], variant: str | None) -> WeightFiles | None:
    """Choose one set: the requested variant, else no variant, else another one.

    Args:
        found: what ``find_weight_files`` returned.
        variant: the variant asked for; None for the weights without one.

    Returns:
        The chosen set; None where there is none.
    """
    order = [variant, None, *_OTHER_VARIANTS]

    def rank(files: WeightFiles) -> tuple[int, str, int]:
        position = order.index(files.variant) if files.variant in order else len(order)
        return position, files.variant or "", _STEMS.index(files.stem)

    return min(found, key=rank, default=None)


def is_complete(shards: Iterable[str]) -> bool:
    """Whether shards without an index are all there: numbers 1 to N of N, each once."""
    matches = [match for match in map(_SHARD.fullmatch, shards) if match is not None]
    counts = {int(match["count"]) for match in matches}
    numbers = sorted(int(match["number"]) for match in matches)
    return len(counts) == 1 and numbers == list(range(1, counts.pop() + 1))


def describe_unread(names: Iterable[str]) -> str | None:
    """Name the kind of the weights in a folder that are in no format that is read.

    Args:
        names: file names, without folders.

    Returns:
        For example ``diffusion_pytorch_model.bin (PyTorch pickle)``; None where there are none.
    """
    unread = (
        f"{name} ({kind})"
        for name in sorted(names)
        for ending, kind in _UNREAD_ENDINGS.items()
        if name.endswith(ending)
    )
    return next(unread, None)


def _key(match: re.Match[str]) -> tuple[str, str | None]:
    return match["stem"], match["before"] or match["after"]
