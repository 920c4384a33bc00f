"""How strongly a LoRA was trained to act: alpha, rank, and who says so."""

from __future__ import annotations

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.errors import HotshotError
from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.lora.names import Module
from hotshot_jax.lora.patterns import find_by_pattern

HEADER_KEY = "lora_adapter_metadata"
_COMPONENTS = ("unet", "text_encoder_2", "text_encoder")


@dataclasses.dataclass(frozen=True)
class AdapterConfig:
    """PEFT's configuration of an adapter, as far as it decides strengths.

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

    @classmethod
    def from_json(cls, values: Mapping[str, Any], where: Path) -> AdapterConfig:
        """The content of an `adapter_config.json`, which speaks of every component."""
        return cls({"": values}, where)

    def of(self, module: Module) -> Mapping[str, Any]:
        """What applies to a module's component."""
        return self.values.get(module.component, self.values.get("", {}))

    def method(self) -> str | None:
        """PEFT's name of the method, where it is given."""
        for values in self.values.values():
            if values.get("peft_type"):
                return str(values["peft_type"])
        return None

    def alpha(self, module: Module) -> float | None:
        """Alpha of a module: its pattern's, or the adapter's."""
        values = self.of(module)
        default = values.get("lora_alpha", values.get("alpha"))
        return self._number(self._pattern(values, "alpha_pattern", module.name, default), "alpha")

    def rank(self, module: Module) -> float | None:
        """Rank of a module: its pattern's, or the adapter's."""
        values = self.of(module)
        pattern = self._pattern(values, "rank_pattern", module.name, values.get("r"))
        rank = self._number(pattern, "r")
        if rank is not None and rank <= 0:
            raise HotshotError(f"{self.where}: r = {rank:g} is no rank.")
        return rank

    def rank_stabilised(self, module: Module) -> bool:
        """Whether alpha is divided by the square root of the rank (rsLoRA)."""
        return bool(self.of(module).get("use_rslora", False))

    def _pattern(self, values: Mapping[str, Any], key: str, name: str, default: Any) -> Any:
        try:
            return find_by_pattern(values.get(key), name, default)
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


def scaling(module: Module, rank: int, alpha: float | None, config: AdapterConfig) -> float:
    """What the product of a module's factors is multiplied by.

    Alpha is that of PEFT's configuration where there is one, else the file's own, else the rank.

    Args:
        module: the module.
        rank: inner dimension of its factors.
        alpha: what the file has for it.
        config: PEFT's configuration.

    Raises:
        HotshotError: alpha is 0 or not finite, or the configuration states another rank.
    """
    stated = config.rank(module)
    if stated is not None and stated != rank:
        raise HotshotError(
            f"{config.where}: {module} has rank {rank}, but its adapter configuration says "
            f"{stated:g}; the files do not belong together."
        )
    configured = config.alpha(module)
    alpha = alpha if configured is None else configured
    if alpha is not None and not math.isfinite(alpha):
        raise HotshotError(f"{config.where}: alpha of {module} is {alpha}; the file is damaged.")
    if alpha is None:
        return 1.0
    if alpha == 0:
        # Some tools read it as the rank, others as no change at all.
        raise HotshotError(
            f"{config.where}: alpha of {module} is 0, which tools read in two ways; store "
            "the alpha that it was trained with, or none for alpha = rank."
        )
    divisor = math.sqrt(rank) if config.rank_stabilised(module) else rank
    return alpha / divisor
