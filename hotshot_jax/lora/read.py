"""Reading a LoRA: from what the user names, of any family of layouts, to changes of tensors."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hotshot_jax.convert.formats.single_file_config import stated_prediction
from hotshot_jax.convert.tensors.file_content import PICKLES, read_json_object, refuse_pickle
from hotshot_jax.convert.tensors.tensor_source import (
    TensorSource,
    check_finite,
    first_names,
    open_file,
)
from hotshot_jax.convert.tensors.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora.adapter_config import AdapterConfig
from hotshot_jax.lora.build import ChangeBuilder
from hotshot_jax.lora.changes import Change
from hotshot_jax.lora.families import (
    header_family,
    other_family,
    refuse_other_families,
    refuse_other_methods,
    stated_algorithm,
)
from hotshot_jax.lora.names import (
    ALPHA,
    SAVED_BIAS,
    SAVED_WEIGHT,
    Module,
    ModuleNames,
    Spelling,
    split_key,
)

Changes = Mapping[str, Mapping[str, tuple[Change, ...]]]
"""By component and PyTorch's name of a tensor."""

_BUNDLED = "bundle_emb."
# What PEFT keeps of a training (VeLoRA's compression of gradients) and no weight depends on.
_LEFTOVERS = (".lora_velora_embed",)


@dataclasses.dataclass(frozen=True)
class LoraReport:
    """What became of a file's keys.

    Attributes:
        matched: number of modules that are changed, by component.
        unmatched: keys that fit nowhere.
        notes: what the user should be told, one sentence each.
    """

    matched: Mapping[str, int]
    unmatched: tuple[str, ...]
    notes: tuple[str, ...]

    def __str__(self) -> str:
        counts = ", ".join(f"{count} in {component}" for component, count in self.matched.items())
        text = f"{sum(self.matched.values())} modules matched ({counts})"
        if self.unmatched:
            text += f", {len(self.unmatched)} keys unmatched: {first_names(self.unmatched)}"
        return ". ".join([text, *(note.rstrip(".") for note in self.notes)]) + "."


@dataclasses.dataclass(frozen=True)
class Lora:
    """A LoRA, ready to be merged at any strength.

    Holds the file's factors in main memory as they were stored, not the products.

    Attributes:
        path: the file.
        changes: what it does to each tensor.
        report: what became of its keys.
        prediction_type: what it was trained to predict, where its header says so.
    """

    path: Path
    changes: Changes
    report: LoraReport
    prediction_type: str | None = None

    def names(self, component: str) -> frozenset[str]:
        """PyTorch's names of the tensors of a component that it changes."""
        return frozenset(self.changes.get(component, {}))


def read_lora(
    source: TensorSource,
    names: ModuleNames,
    *,
    config: AdapterConfig | None = None,
    allow_partial: bool = False,
) -> Lora:
    """Reads a LoRA of any of the supported kinds.

    Kinds: kohya (original or diffusers names), LoCon with and without the mid tensor, LoHa, LoKr,
    DoRA, full differences and norms, PEFT, and diffusers' former attention processors.

    Args:
        source: the file.
        names: the modules of the model, by their spellings.
        config: content of an `adapter_config.json` beside the file; without it, what the file's
            header has.
        allow_partial: whether keys that fit nowhere are left out instead of refused.

    Raises:
        HotshotError: the file is for another model or of another method (both named); no key fits,
            or some do not and `allow_partial` is false; parts of a module are missing, unknown, do
            not fit each other or the model, or hold NaN or infinite values.
    """
    if config is None:
        config = AdapterConfig.from_header(source.metadata, source.path)
    config.refuse_other_meanings()
    refuse_other_methods(source)
    refuse_other_families(source, names.text_width)
    check_weight_types(source, ignored=_is_no_weight)

    found, unmatched = _match(source, names, config)
    stated = header_family(source.metadata)
    notes = []
    bundled = [key for key in unmatched if key.startswith(_BUNDLED)]
    if bundled:
        unmatched = [key for key in unmatched if not key.startswith(_BUNDLED)]
        notes.append("The embeddings bundled with it are not loaded; give them with `embeddings`.")
    if stated is not None and (unmatched or not found):
        raise other_family(source, stated)
    if not found:
        raise HotshotError(
            f"{source.path}: none of its {len(source)} keys names a module of this model "
            f"({first_names(tuple(source))})."
        )
    if unmatched and not allow_partial:
        raise HotshotError(
            f"{source.path}: {len(unmatched)} of its {len(source)} keys fit nowhere in this model "
            f"({first_names(tuple(unmatched))}).\nTo use the rest, add `lora_allow_partial`."
        )
    try:
        changes, matched, doubled = _changes(source, found, ChangeBuilder(config, source.path))
    except HotshotError as error:
        raise error if stated is None else other_family(source, stated) from error
    if stated is not None:
        notes.append(f"Its header says {stated}, but all of it fits this model, so it is used.")
    if doubled:
        notes.append(
            f"{doubled} modules are in it under original and diffusers names; the latter are used."
        )
    return Lora(
        source.path,
        changes,
        LoraReport(matched, tuple(unmatched), tuple(notes)),
        stated_prediction(source).prediction_type,
    )


Found = dict[Module, list[tuple[Spelling, str, str]]]
"""For each module: how it is spelled, the part, and the key."""


def _match(
    source: TensorSource, names: ModuleNames, config: AdapterConfig
) -> tuple[Found, list[str]]:
    """What the file has for each module, and the keys of modules that are not there.

    Raises:
        HotshotError: a key is a part of a module of the model, but none that is known. Leaving it
            out would make another LoRA of the rest.
    """
    found: Found = {}
    unmatched: list[str] = []
    unknown: list[str] = []
    for key in source:
        if key.endswith(_LEFTOVERS):
            continue
        stem, part = split_key(key) or (key, "")
        spelling = names.find(stem) if part else None
        if spelling is None:
            (unmatched if names.owner(key) is None else unknown).append(key)
        elif part in (SAVED_WEIGHT, SAVED_BIAS) and not config.saves_modules(spelling.module):
            unknown.append(key)
        else:
            found.setdefault(spelling.module, []).append((spelling, part, key))
    if unknown:
        algorithm = stated_algorithm(source.metadata)
        method = "" if algorithm is None else f" of the method {algorithm!r}"
        raise HotshotError(
            f"{source.path}: {len(unknown)} of its keys are parts{method} that are not known here, "
            f"of modules that are: {first_names(tuple(unknown))}. Without them it would be another "
            "LoRA; merge it into a model with the tool that trained it."
        )
    return found, unmatched


def _changes(
    source: TensorSource, found: Found, builder: ChangeBuilder
) -> tuple[Changes, dict[str, int], int]:
    """The changes, the number of modules by component, and how many are there under two names."""
    changes: dict[str, dict[str, tuple[Change, ...]]] = {}
    matched: dict[str, int] = {}
    doubled = 0
    for module, spellings in found.items():
        keys, both = _prefer_current(spellings, source.path)
        doubled += both
        parts = {part: _read(source, key) for part, key in keys.items()}
        for leaf, group in builder.build(module, parts).items():
            changes.setdefault(module.component, {})[f"{module.name}.{leaf}"] = tuple(group)
        matched[module.component] = matched.get(module.component, 0) + 1
    return changes, matched, doubled


def _prefer_current(
    spellings: list[tuple[Spelling, str, str]], where: Path
) -> tuple[dict[str, str], bool]:
    """The key of each part, and whether keys in original names were left out.

    Raises:
        HotshotError: a part is there twice under names of one kind, or the original names have
            parts that diffusers' lack.
    """
    keys: dict[bool, dict[str, str]] = {False: {}, True: {}}
    for spelling, part, key in spellings:
        earlier = keys[spelling.original].setdefault(part, key)
        if earlier != key:
            raise HotshotError(
                f"{where}: {spelling.module} is in it twice, as {earlier} and {key}."
            )
    current, original = keys[False], keys[True]
    if not current or not original:
        return current or original, False
    if current.keys().isdisjoint(original):
        return current | original, False
    more = [key for part, key in original.items() if part not in current]
    if more:
        raise HotshotError(
            f"{where}: {spellings[0][0].module} is in it under two names, of which one has more "
            f"parts ({first_names(more)})."
        )
    return current, True


def _read(source: TensorSource, key: str) -> np.ndarray:
    # A copy, so that strengths can change after the file is gone.
    values = np.array(source.read(key))
    source.release(key)
    check_finite(f"{source.path}: {key}", values)
    return values


def _is_no_weight(key: str) -> bool:
    return key.endswith(f".{ALPHA}") or key.startswith(_BUNDLED)


_USUAL_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
_CONFIG = "adapter_config.json"


def parse_lora(argument: str) -> tuple[str, float]:
    """Splits `PATH[:SCALE]`.

    Args:
        argument: a path or Hub id, with or without a strength (1 without).

    Raises:
        UsageError: what follows the last colon is no finite number, and no such file exists.
    """
    path, colon, scale = argument.rpartition(":")
    if not colon or Path(argument).exists():
        return argument, 1.0
    try:
        value = float(scale)
    except ValueError:
        value = math.nan
    if not path or not math.isfinite(value):
        raise UsageError(
            f"`loras` {argument}: {scale!r} is not a scale; expected PATH or PATH:NUMBER, such as "
            "style.safetensors:0.8."
        )
    return path, value


def find_lora(path: Path) -> Path:
    """The weights in a file or folder.

    Raises:
        HotshotError: there is nothing, a pickle only, or several files to choose from.
    """
    if path.is_dir():
        named = [path / name for name in _USUAL_NAMES if (path / name).is_file()]
        files = named[:1] or sorted(path.glob("*.safetensors"))
        if len(files) == 1:
            return files[0]
        if files:
            listed = ", ".join(file.name for file in files[:5])
            raise HotshotError(f"{path} holds {len(files)} files ({listed}); name the one to use.")
        pickles = sorted(file for file in path.iterdir() if file.suffix in PICKLES)
        if pickles:
            return find_lora(pickles[0])
        raise HotshotError(f"{path} holds no .safetensors file.")
    if not path.exists():
        raise HotshotError(f"{path}: there is no such LoRA file or folder.")
    refuse_pickle(path)
    return path


def open_lora(path: Path, names: ModuleNames, *, allow_partial: bool = False) -> Lora:
    """Opens a LoRA in a local file or folder.

    Args:
        path: the file, or a folder with it and perhaps PEFT's `adapter_config.json`.
        names: the modules of the model, by their spellings.
        allow_partial: whether keys that fit nowhere are left out instead of refused.

    Raises:
        HotshotError: there is no file, or it cannot be used (see `read_lora`).
    """
    file = find_lora(path)
    source = open_file(file)
    beside = file.with_name(_CONFIG)
    config = None
    if file.name in _USUAL_NAMES and beside.is_file():
        # It speaks of every component.
        config = AdapterConfig({"": read_json_object(beside)}, beside)
    return read_lora(source, names, config=config, allow_partial=allow_partial)


def select_lora_files(names: Sequence[str]) -> list[str]:
    """Which files of a Hub repository to download for a LoRA; for `convert.hub.resolve`.

    Args:
        names: all files of the repository.

    Raises:
        HotshotError: there is no LoRA in it, or several that have no usual name.
    """
    top = [name for name in names if "/" not in name]
    files = [name for name in _USUAL_NAMES if name in top][:1]
    files = files or [name for name in top if name.endswith(".safetensors")]
    if len(files) != 1:
        listed = f"{len(files)} files ({', '.join(files[:5])})" if files else "no .safetensors file"
        raise HotshotError(
            f"The repository holds {listed}; expected one LoRA. Download the one that you "
            "want and give its path."
        )
    return files + [name for name in (_CONFIG,) if name in top]
