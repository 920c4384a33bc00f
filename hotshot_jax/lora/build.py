"""From the parts that a file has for one module to the changes of its weight and bias."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from hotshot_jax.errors import HotshotError
from hotshot_jax.lora.adapter_config import AdapterConfig
from hotshot_jax.lora.changes import (
    Added,
    Change,
    Decomposed,
    Delta,
    Difference,
    Hadamard,
    Kronecker,
    LowRank,
    Replaced,
)
from hotshot_jax.lora.names import (
    ALPHA,
    BIAS,
    DORA_SCALE,
    DOWN,
    MAGNITUDE,
    MID,
    SAVED_BIAS,
    SAVED_WEIGHT,
    UP,
    Module,
)

Parts = Mapping[str, np.ndarray]

_LOHA = ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b")
_LOHA_CORES = ("hada_t1", "hada_t2")
_LOKR = ("lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2")
_WEIGHT_DIFFERENCES = ("diff", "w_norm")
_WHOLE_WEIGHTS = ("set_weight", SAVED_WEIGHT)
_BIAS_DIFFERENCES = ("diff_b", "b_norm")


class ChangeBuilder:
    """Builds the changes of one file.

    Args:
        config: PEFT's configuration of the adapter.
        where: the file, for messages.
    """

    def __init__(self, config: AdapterConfig, where: Path):
        self._config = config
        self._where = where

    def build(self, module: Module, parts: Parts) -> dict[str, list[Change]]:
        """The changes of a module, by "weight" and "bias".

        Args:
            module: the module.
            parts: what the file has for it, by part (see `names.split_key`).

        Raises:
            HotshotError: parts are missing, their shapes do not fit each other or the module, or
                the module has no such weight.
        """
        changes: dict[str, list[Change]] = {}
        factors, factor = self._factors(module, parts)
        deltas: list[Delta] = [] if factors is None else [factors]
        deltas += [Difference(parts[name]) for name in _WEIGHT_DIFFERENCES if name in parts]
        if DORA_SCALE in parts or MAGNITUDE in parts:
            changes["weight"] = [self._decomposed(module, parts, deltas)]
        elif factors is not None and self._config.decomposed(module):
            self._wrong(module, "no magnitude, though its configuration says DoRA")
        elif deltas:
            changes["weight"] = [Added(delta) for delta in deltas]
        for name in _WHOLE_WEIGHTS:
            if name in parts:
                changes.setdefault("weight", []).append(Replaced(parts[name]))
        biases = [Difference(parts[name]) for name in _BIAS_DIFFERENCES if name in parts]
        if BIAS in parts:
            biases.append(Difference(parts[BIAS], factor))
        if biases:
            changes["bias"] = [Added(bias) for bias in biases]
        if SAVED_BIAS in parts:
            changes.setdefault("bias", []).append(Replaced(parts[SAVED_BIAS]))
        if not changes:
            self._incomplete(module, parts, "nothing but " + ", ".join(parts))
        for name, expected in (("weight", module.weight), ("bias", module.bias)):
            if name in changes and expected is None:
                raise HotshotError(
                    f"{self._where}: {module} has no {name}, which this LoRA changes."
                )
        for name in (*_WEIGHT_DIFFERENCES, *_WHOLE_WEIGHTS):
            self._check_size(module, name, parts, module.weight)
        for name in (*_BIAS_DIFFERENCES, BIAS, SAVED_BIAS):
            self._check_size(module, name, parts, module.bias)
        return changes

    def _factors(self, module: Module, parts: Parts) -> tuple[Delta | None, float]:
        methods = (
            ((DOWN, UP, MID), self._low_rank),
            ((*_LOHA, *_LOHA_CORES), self._hadamard),
            (_LOKR, self._kronecker),
        )
        used = [read for names, read in methods if any(name in parts for name in names)]
        if len(used) > 1:
            self._wrong(module, f"parts of several methods ({', '.join(parts)})")
        return used[0](module, parts) if used else (None, 1.0)

    def _low_rank(self, module: Module, parts: Parts) -> tuple[Delta, float]:
        self._require(module, parts, (DOWN, UP))
        down, up, mid = parts[DOWN], parts[UP], parts.get(MID)
        rank = down.shape[0] if down.ndim else 0
        out, inner = self._weight(module)[0], math.prod(self._weight(module)[1:])
        if up.ndim < 2 or down.ndim < 2 or math.prod(up.shape[1:]) != rank:
            ranks = f"{up.shape[1] if up.ndim > 1 else 0} and {rank}"
            self._wrong(module, f"up and down have the ranks {ranks}; they must be equal")
        if mid is None:
            fits = up.shape[0] == out and math.prod(down.shape[1:]) == inner
        else:
            kernel = self._weight(module)[2:]
            fits = (
                mid.shape == (rank, rank, *kernel)
                and len(kernel) == 2
                and up.shape[0] == out
                and math.prod(down.shape[1:]) * math.prod(kernel) == inner
            )
        if not fits:
            self._wrong_shapes(module, {"up": up, "mid": mid, "down": down})
        factor = self._scaling(module, rank, parts)
        return LowRank(down, up, factor, mid), factor

    def _hadamard(self, module: Module, parts: Parts) -> tuple[Delta, float]:
        self._require(module, parts, _LOHA)
        w1_a, w1_b, w2_a, w2_b = (parts[name] for name in _LOHA)
        named = {name: parts[name] for name in (*_LOHA, *_LOHA_CORES) if name in parts}
        if any(factor.ndim < 2 for factor in named.values()):
            self._wrong_shapes(module, named)
        shape = self._weight(module)
        cores = None
        if any(name in parts for name in _LOHA_CORES):
            self._require(module, parts, _LOHA_CORES)
            cores = (parts["hada_t1"], parts["hada_t2"])
            fits = len(shape) == 4 and all(
                _fits_tucker(core, a, b, shape)
                for core, a, b in zip(cores, (w1_a, w2_a), (w1_b, w2_b), strict=True)
            )
        else:
            fits = all(
                a.shape == (shape[0], len(b)) and math.prod(b.shape[1:]) == math.prod(shape[1:])
                for a, b in ((w1_a, w1_b), (w2_a, w2_b))
            )
        if not fits:
            self._wrong_shapes(module, named)
        factor = self._scaling(module, w1_b.shape[0], parts)
        return Hadamard((w1_a, w1_b), (w2_a, w2_b), factor, cores), factor

    def _kronecker(self, module: Module, parts: Parts) -> tuple[Delta, float]:
        named = {name: parts[name] for name in _LOKR if name in parts}
        first = self._factor(module, parts, "lokr_w1")
        second = self._factor(module, parts, "lokr_w2")
        core = parts.get("lokr_t2")
        # LyCORIS takes the rank from the first factored matrix; without one it does not scale.
        rank = next(
            (parts[f"{w}_b"].shape[0] for w in ("lokr_w1", "lokr_w2") if f"{w}_b" in parts), None
        )
        factor = 1.0
        if rank is not None:
            factor = self._scaling(module, rank, parts)
        elif (stated := self._config.rank(module)) is not None:
            # PEFT does.
            factor = (self._config.alpha(module) or stated) / stated
        delta = Kronecker(first, second, factor, core)
        try:
            fits = _kronecker_size(delta) == math.prod(self._weight(module))
        except (ValueError, IndexError):
            fits = False
        if not fits:
            self._wrong_shapes(module, named)
        return delta, factor

    def _factor(self, module: Module, parts: Parts, name: str) -> tuple[np.ndarray, ...]:
        factored = [f"{name}_{each}" for each in "ab" if f"{name}_{each}" in parts]
        if name in parts and factored:
            self._wrong(module, f"both {name} and {' and '.join(factored)}")
        if name in parts:
            return (parts[name],)
        self._require(module, parts, (f"{name}_a", f"{name}_b"))
        return parts[f"{name}_a"], parts[f"{name}_b"]

    def _decomposed(self, module: Module, parts: Parts, deltas: list[Delta]) -> Change:
        magnitude = parts[MAGNITUDE] if MAGNITUDE in parts else parts[DORA_SCALE]
        if MAGNITUDE in parts and DORA_SCALE in parts:
            self._wrong(module, f"both {DORA_SCALE} and a magnitude vector")
        if len(deltas) != 1:
            self._incomplete(module, parts, "a DoRA magnitude without its factors")
        shape = self._weight(module)
        by_output = (magnitude.size,) == shape[:1]
        by_input = (magnitude.size,) == shape[1:2]
        if DORA_SCALE in parts and by_input and magnitude.ndim > 1 and magnitude.shape[0] == 1:
            # LyCORIS's older axis: [1, in, ...]. Its current one is [out, 1, ...], PEFT's [out] or
            # [1, out, 1, 1].
            return Decomposed(deltas[0], magnitude, by_input=True)
        if not by_output:
            self._wrong_shapes(module, {"magnitude": magnitude})
        return Decomposed(deltas[0], magnitude)

    def _scaling(self, module: Module, rank: int, parts: Parts) -> float:
        if rank < 1:
            self._wrong(module, "its rank is 0")
        alpha = parts.get(ALPHA)
        if alpha is not None and alpha.size != 1:
            self._wrong(module, f"alpha has {alpha.size} values, expected one")
        value = None if alpha is None else float(alpha.reshape(-1)[0])
        return self._config.scaling(module, rank, value)

    def _weight(self, module: Module) -> tuple[int, ...]:
        if module.weight is None:
            raise HotshotError(f"{self._where}: {module} has no weight, which this LoRA changes.")
        return module.weight

    def _check_size(
        self, module: Module, name: str, parts: Parts, expected: tuple[int, ...] | None
    ) -> None:
        if name in parts and expected is not None and parts[name].size != math.prod(expected):
            self._wrong(
                module, f"{name} has shape {list(parts[name].shape)}, expected {list(expected)}"
            )

    def _require(self, module: Module, parts: Parts, names: tuple[str, ...]) -> None:
        missing = [name for name in names if name not in parts]
        if missing:
            self._incomplete(module, parts, f"no {' and no '.join(missing)}")

    def _incomplete(self, module: Module, parts: Parts, what: str) -> None:
        self._wrong(module, f"the file has {what}; it is incomplete")

    def _wrong_shapes(self, module: Module, parts: Mapping[str, np.ndarray | None]) -> None:
        listed = ", ".join(
            f"{name} {list(part.shape)}" for name, part in parts.items() if part is not None
        )
        self._wrong(module, f"{listed} do not fit its weight {list(module.weight or ())}")

    def _wrong(self, module: Module, what: str) -> None:
        raise HotshotError(f"{self._where}: {module}: {what}.")


def _fits_tucker(
    core: np.ndarray, outputs: np.ndarray, inputs: np.ndarray, shape: tuple[int, ...]
) -> bool:
    """Whether a core and two matrices make a kernel `[out, in, height, width]` of this shape."""
    expected = (outputs.shape[0], inputs.shape[0], *shape[2:])
    return core.shape == expected and (outputs.shape[1], inputs.shape[1]) == shape[:2]


def _kronecker_size(delta: Kronecker) -> int:
    """Number of values of the product, from shapes alone.

    Raises:
        ValueError: factors do not multiply.
    """

    def size(factors: tuple[np.ndarray, ...]) -> int:
        if len(factors) == 1:
            return factors[0].size
        a, b = factors
        if a.shape[1] != b.shape[0]:
            raise ValueError("ranks differ")
        return a.shape[0] * b[0].size

    if delta.core is None:
        return size(delta.first) * size(delta.second)
    outputs, inputs = delta.second
    if delta.core.shape[:2] != (outputs.shape[0], inputs.shape[0]):
        raise ValueError("ranks differ")
    return size(delta.first) * outputs.shape[1] * inputs.shape[1] * math.prod(delta.core.shape[2:])
