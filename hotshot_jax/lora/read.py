"""Reading a LoRA file: every family of layouts to changes of the model's own tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hotshot_jax.convert.name_lists import first_names
from hotshot_jax.convert.tensor_source import TensorSource, check_finite
from hotshot_jax.convert.weight_types import check_weight_types
from hotshot_jax.errors import HotshotError
from hotshot_jax.lora.build import ChangeBuilder
from hotshot_jax.lora.changes import Change
from hotshot_jax.lora.families import refuse_other_families, refuse_other_methods
from hotshot_jax.lora.keys import ALPHA, split_key
from hotshot_jax.lora.names import Module, ModuleNames, Spelling
from hotshot_jax.lora.scaling import AdapterConfig

Changes = Mapping[str, Mapping[str, tuple[Change, ...]]]
"""By component and PyTorch's name of a tensor."""

_BUNDLED = "bundle_emb."


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
    """

    path: Path
    changes: Changes
    report: LoraReport

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
            or some do not and `allow_partial` is false; parts of a module are missing, do not fit
            each other or the model, or hold NaN or infinite values.
    """
    if config is None:
        config = AdapterConfig.from_header(source.metadata, source.path)
    refuse_other_methods(source, config.method())
    refuse_other_families(source, names.text_width)
    check_weight_types(source, ignored=_is_no_weight)

    found, unmatched = _match(source, names)
    notes = []
    bundled = [key for key in unmatched if key.startswith(_BUNDLED)]
    if bundled:
        unmatched = [key for key in unmatched if not key.startswith(_BUNDLED)]
        notes.append("The embeddings bundled with it are not loaded; give them with --embedding.")
    if not found:
        raise HotshotError(
            f"{source.path}: none of its {len(source)} keys names a module of this model "
            f"({first_names(tuple(source))})."
        )
    if unmatched and not allow_partial:
        raise HotshotError(
            f"{source.path}: {len(unmatched)} of its {len(source)} keys fit nowhere in this model "
            f"({first_names(tuple(unmatched))}).\nTo use the rest, add --lora_allow_partial."
        )

    builder = ChangeBuilder(config, source.path)
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
    if doubled:
        notes.append(
            f"{doubled} modules are in it under original and diffusers names; the latter are used."
        )
    return Lora(source.path, changes, LoraReport(matched, tuple(unmatched), tuple(notes)))


Found = dict[Module, list[tuple[Spelling, str, str]]]
"""For each module: how it is spelled, the part, and the key."""


def _match(source: TensorSource, names: ModuleNames) -> tuple[Found, list[str]]:
    found: Found = {}
    unmatched = []
    for key in source:
        split = split_key(key)
        spelling = names.get(split[0]) if split else None
        if split is None or spelling is None:
            unmatched.append(key)
        else:
            found.setdefault(spelling.module, []).append((spelling, split[1], key))
    return found, unmatched


def _prefer_current(
    spellings: list[tuple[Spelling, str, str]], where: Path
) -> tuple[dict[str, str], bool]:
    """The key of each part, and whether keys in original names were left out."""
    current = [each for each in spellings if not each[0].original]
    both = bool(current) and len(current) < len(spellings)
    keys: dict[str, str] = {}
    for spelling, part, key in current or spellings:
        earlier = keys.setdefault(part, key)
        if earlier != key:
            raise HotshotError(
                f"{where}: {spelling.module} is in it twice, as {earlier} and {key}."
            )
    return keys, both


def _read(source: TensorSource, key: str) -> np.ndarray:
    # A copy, so that strengths can change after the file is gone.
    values = np.array(source.read(key))
    source.release(key)
    check_finite(f"{source.path}: {key}", values)
    return values


def _is_no_weight(key: str) -> bool:
    return key.endswith(f".{ALPHA}") or key.startswith(_BUNDLED)
