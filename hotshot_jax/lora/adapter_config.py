"""PEFT's configuration of an adapter: its strengths, and what its tensors mean."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.lora.names import Module

HEADER_KEY = "lora_adapter_metadata"
METHODS = ("LORA", "LOHA", "LOKR")
"""PEFT's names of the methods that are merged."""

_COMPONENTS = ("unet", "text_encoder_2", "text_encoder")

# How factors start has no effect once they are trained, as long as the base weight stays as it is.
_PLAIN_STARTS = ("gaussian", "eva", "orthogonal", "mica", "lycoris", "true", "false")
# These take something out of the base weight, which is missing from the file.
_MOVED_STARTS = {
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "lora_ga": "LoRA-GA",
    "loftq": "LoftQ",
}
# Options that make something else than a product of two factors of the same keys.
_OTHER_METHODS = {
    "alora_invocation_tokens": "activated LoRA",
    "arrow_config": "Arrow",
    "kasa_config": "KaSA",
    "layer_replication": "replicated layers",
    "monteclora_config": "MonteCLoRA",
    "target_parameters": "LoRA of bare parameters",
    "trainable_token_indices": "trainable tokens",
    "use_bdlora": "BD-LoRA",
    "use_qalora": "QA-LoRA",
}
# Options that are read here, that say how it was trained, or that follow from the keys.
_HARMLESS = frozenset(
    """
    alpha alpha_pattern auto_mapping base_model_name_or_path bias corda_config decompose_both
    decompose_factor ensure_weight_tying eva_config exclude_modules fan_in_fan_out inference_mode
    init_lora_weights init_weights layers_pattern layers_to_transform loftq_config lora_alpha
    lora_bias lora_dropout lora_ga_config megatron_config megatron_core module_dropout
    modules_to_save peft_type peft_version qalora_group_size r rank_dropout rank_dropout_scale
    rank_pattern revision runtime_config target_modules task_type use_dora use_effective_conv2d
    use_rslora velora_config
    """.split()
)


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """PEFT's configuration of an adapter, as far as it decides what its tensors mean.

    Attributes:
        values: by component, the content of `adapter_config.json`; under "" for all of them.
        where: the file, for messages.
    """

    values: Mapping[str, Mapping[str, Any]]
    where: Path

    @classmethod
    def from_header(cls, metadata: Mapping[str, str], where: Path) -> AdapterConfig:
        """Reads what diffusers writes into the header of a LoRA file.

        Raises:
            HotshotError: it is there, but no JSON object.
        """
        text = metadata.get(HEADER_KEY)
        if text is None:
            return cls({}, where)
        try:
            flat = parse_json(text)
        except ParseError as error:
            raise HotshotError(f"{where}: {HEADER_KEY} in its header {error}.") from error
        if not isinstance(flat, dict):
            raise HotshotError(f"{where}: {HEADER_KEY} in its header is not a JSON object.")
        values: dict[str, dict[str, Any]] = {}
        for key, value in flat.items():
            component = next((c for c in _COMPONENTS if key.startswith(f"{c}.")), "")
            values.setdefault(component, {})[key.removeprefix(f"{component}.")] = value
        return cls(values, where)

    def refuse_other_meanings(self) -> None:
        """Raises where the same tensors mean something else than what is merged here.

        Raises:
            HotshotError: names the method, the start or the option.
        """
        for values in self.values.values():
            for key, value in values.items():
                found = _other_meaning(key, value)
                if found is not None:
                    raise HotshotError(f"{self.where} {found}")

    def of(self, module: Module) -> Mapping[str, Any]:
        """What applies to a module's component."""
        return self.values.get(module.component, self.values.get("", {}))

    def alpha(self, module: Module) -> float | None:
        """Alpha of a module: its pattern's, or the adapter's."""
        values = self.of(module)
        default = values.get("lora_alpha", values.get("alpha"))
        return self._number(self._pattern("alpha_pattern", module, default), "alpha")

    def rank(self, module: Module) -> float | None:
        """Rank of a module: its pattern's, or the adapter's."""
        rank = self._number(self._pattern("rank_pattern", module, self.of(module).get("r")), "r")
        if rank is not None and rank <= 0:
            raise HotshotError(f"{self.where}: r = {rank:g} is no rank.")
        return rank

    def scaling(self, module: Module, rank: int, alpha: float | None) -> float:
        """What the product of a module's factors is multiplied by.

        Alpha is this configuration's if it has one, else the file's own, else the rank.

        Args:
            module: the module.
            rank: inner dimension of its factors.
            alpha: what the file has for it.

        Raises:
            HotshotError: alpha is 0 or not finite, or the configuration states another rank.
        """
        stated = self.rank(module)
        if stated is not None and stated != rank:
            raise HotshotError(
                f"{self.where}: {module} has rank {rank}, but its adapter configuration says "
                f"{stated:g}; the files do not belong together."
            )
        configured = self.alpha(module)
        alpha = alpha if configured is None else configured
        if alpha is not None and not math.isfinite(alpha):
            raise HotshotError(f"{self.where}: alpha of {module} is {alpha}; the file is damaged.")
        if alpha is None:
            return 1.0
        if alpha == 0:
            # Some tools read it as the rank, others as no change at all.
            raise HotshotError(
                f"{self.where}: alpha of {module} is 0, which tools read in two ways; store "
                "the alpha that it was trained with, or none for alpha = rank."
            )
        return alpha / (math.sqrt(rank) if self.rank_stabilised(module) else rank)

    def rank_stabilised(self, module: Module) -> bool:
        """Whether alpha is divided by the square root of the rank (rsLoRA)."""
        return bool(self.of(module).get("use_rslora", False))

    def decomposed(self, module: Module) -> bool:
        """Whether each module has a magnitude (DoRA)."""
        return bool(self.of(module).get("use_dora", False))

    def saves_modules(self, module: Module) -> bool:
        """Whether weights or biases of a module may be stored whole, in place of the model's."""
        values = self.of(module)
        return bool(values.get("modules_to_save")) or values.get("bias") in ("all", "lora_only")

    def _pattern(self, key: str, module: Module, default: Any) -> Any:
        try:
            return find_by_pattern(self.of(module).get(key), module.name, default)
        except ValueError as error:
            raise HotshotError(f"{self.where}: {key} {error}.") from error

    def _number(self, value: Any, key: str) -> float | None:
        if value is None:
            return None
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not math.isfinite(value)
        ):
            raise HotshotError(f"{self.where}: {key} = {reprlib.repr(value)} is not a number.")
        return float(value)


def _other_meaning(key: str, value: Any) -> str | None:
    """Why an option changes what the tensors mean; None where it does not, or is off."""
    if not value:
        return None
    shown = f"{key} = {reprlib.repr(value)}"
    if key == "peft_type" and str(value).upper() not in METHODS:
        return (
            f"uses {str(value)[:40]}, which is not supported (LoRA, LoCon, LoHa, LoKr, DoRA and "
            "full differences are); merge it into a model with the tool that trained it."
        )
    if key in ("init_lora_weights", "init_weights"):
        start = str(value).lower()
        moved = next((name for each, name in _MOVED_STARTS.items() if start.startswith(each)), None)
        if moved is not None:
            return (
                f"was started with {moved} ({shown}), which also changes the base "
                "weights, and those are not in it.\nSave it as a plain LoRA: PEFT's "
                "save_pretrained(..., path_initial_model_for_weight_conversion=...) does."
            )
        if start not in _PLAIN_STARTS:
            return f"has {shown}, which is not known here; it may change base weights."
    if key in _OTHER_METHODS:
        return f"uses {_OTHER_METHODS[key]} ({key}), which is not supported."
    # What PEFT adds in future: an option of its own kind is a method of its own.
    if key not in _HARMLESS and (key.startswith("use_") or key.endswith("_config")):
        return f"has {shown}, which is not known here; it may change what its keys mean."
    return None


_PLAIN = re.compile(r"[\w.]+")
# A regular expression from a file can take for ever. What can only match a number is harmless.
_NUMBERS = re.compile(r"(\\d|\[0-9\])[+*]")
_MOST_OF_EACH = 3


def find_by_pattern(table: Any, name: str, default: Any) -> Any:
    """The value of the first pattern that matches the end of a module's path.

    Args:
        table: values by regular expression; None for none.
        name: the module's path.
        default: what is given where no pattern matches.

    Raises:
        ValueError: it is no table, or a pattern is no regular expression or too involved; the
            message is a clause that goes on from the table's name.
    """
    if table is None:
        return default
    if not isinstance(table, Mapping):
        raise ValueError(f"is {reprlib.repr(table)}, not a table")
    return next((value for pattern, value in table.items() if _matches(pattern, name)), default)


def _matches(pattern: str, name: str) -> bool:
    if _PLAIN.fullmatch(pattern) is None:
        return _compiled(pattern).match(name) is not None
    # Files name a thousand modules so, more than `re` keeps compiled.
    start = len(name) - len(pattern)
    fits = start == 0 or (start > 0 and name[start - 1] == ".")
    return fits and all(
        each in (".", found) for each, found in zip(pattern, name[start:], strict=True)
    )


@functools.lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    involved = _NUMBERS.sub("", pattern)
    if (
        sum(map(involved.count, "*+?{")) > _MOST_OF_EACH
        or involved.count("(") > _MOST_OF_EACH
        or re.search(r"\)[*+{]", involved)
    ):
        raise ValueError(f"has the pattern {reprlib.repr(pattern)}, which is too involved")
    try:
        return re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, RecursionError, OverflowError) as error:
        shown = reprlib.repr(pattern)
        raise ValueError(f"has the pattern {shown}, no regular expression ({error})") from error
