"""A case of the parity data, and what is found out about it."""

import dataclasses
import enum
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from hotshot_jax.errors import UsageError

# Bounds on the relative error in float32.
EXACT = 0.0
SINGLE_MODULE = 2e-5
WHOLE_MODEL = 1e-4
PIPELINE_STEP = 2e-4
# Bound on the absolute error of pixels in [0, 1].
PIXEL = 1 / 255


class Verdict(enum.StrEnum):
    """What became of one comparison."""

    OK = "ok"
    FAILED = "FAILED"
    ERROR = "ERROR"
    UNKNOWN = "UNKNOWN"
    DIFFERS = "differs by intent"

    @property
    def fails(self) -> bool:
        """Whether it makes the whole run fail."""
        return self in (Verdict.FAILED, Verdict.ERROR, Verdict.UNKNOWN)


@dataclasses.dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        what: which output of the case.
        verdict: what became of it.
        error: largest difference, divided by the largest reference value unless `absolute`.
        bound: largest error that passes.
        note: why, where the numbers do not say it.
        absolute: whether the error is an absolute difference.
    """

    what: str
    verdict: Verdict
    error: float | None = None
    bound: float | None = None
    note: str = ""
    absolute: bool = False


@dataclasses.dataclass(frozen=True)
class ModelReference:
    """A model that a case names.

    Attributes:
        config_path: its `config.json`.
        shapes_path: names and shapes of its tensors.
        seed: of its formula weights.
    """

    config_path: Path
    shapes_path: Path
    seed: int

    @property
    def config(self) -> dict[str, Any]:
        """The parsed configuration."""
        return json.loads(self.config_path.read_text())


class Case:
    """One case: its description, and its tensors, of which it is noted which were asked for."""

    def __init__(self, path: Path):
        self.folder = path.parent.parent
        self.description: dict[str, Any] = json.loads(path.read_text())
        self.name = str(self.description.get("case", path.stem))
        file = self.description.get("file")
        tensors = self.folder / file if file else path.with_suffix(".safetensors")
        self._tensors = load_file(tensors) if tensors.is_file() else {}
        self._unread = set(self._tensors)

    @property
    def call(self) -> str:
        """What was called to make the case, in words."""
        return str(self.description.get("call", ""))

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments that are not tensors."""
        return self.description.get("arguments", {})

    @property
    def names(self) -> list[str]:
        """Names of all tensors."""
        return list(self._tensors)

    @property
    def unread(self) -> list[str]:
        """Names of the tensors that nothing has asked for."""
        return sorted(self._unread)

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        tensor = self._tensors[name]
        self._unread.discard(name)
        return tensor

    def get(self, name: str) -> np.ndarray | None:
        """The tensor, or None where there is none of this name."""
        try:
            return self[name]
        except KeyError:
            return None

    def prefixes(self, tensor: str) -> list[str]:
        """What stands before the names that end in `tensor`: "" or ending in a dot."""
        return [
            name.removesuffix(tensor)
            for name in self._tensors
            if name == tensor or name.endswith(f".{tensor}")
        ]

    def numbered(self, prefix: str) -> list[np.ndarray]:
        """The tensors `prefix.0`, `prefix.1`, ..."""
        found: list[np.ndarray] = []
        while f"{prefix}.{len(found)}" in self._tensors:
            found.append(self[f"{prefix}.{len(found)}"])
        return found

    def models(self) -> Iterator[ModelReference]:
        """The models of the case."""
        for entry in self.description.get("models", []):
            yield ModelReference(
                self.folder / entry["config"],
                self.folder / entry["shapes"],
                int(entry["weights_seed"]),
            )

    def model(self, class_name: str) -> ModelReference:
        """The model of the case whose configuration has this `_class_name`.

        Raises:
            LookupError: there is none.
        """
        for model in self.models():
            if model.config.get("_class_name") == class_name:
                return model
        raise LookupError(f"the case names no {class_name}")


def read_cases(golden: Path, names: list[str]) -> list[Case]:
    """The cases of a folder, by name.

    Args:
        golden: the folder that holds `cases/`.
        names: which ones; all if empty.

    Raises:
        UsageError: there are no cases, or none of a name.
    """
    paths = sorted((golden / "cases").glob("*.json"))
    if not paths:
        raise UsageError(f"--golden {golden}: no cases/*.json there.")
    cases = {case.name: case for case in map(Case, paths)}
    lonely = {path.stem for path in (golden / "cases").glob("*.safetensors")} - {
        path.stem for path in paths
    }
    if lonely:
        raise UsageError(f"--golden {golden}: cases without a description: {sorted(lonely)}.")
    unknown = [name for name in names if name not in cases]
    if unknown:
        raise UsageError(f"--case {' '.join(unknown)}: no such case; there are {', '.join(cases)}.")
    return [case for name, case in cases.items() if not names or name in names]


def compare(
    what: str,
    got: Any,
    expected: np.ndarray,
    bound: float,
    *,
    absolute: bool = False,
    note: str = "",
) -> Result:
    """Measures how far `got` is from `expected`.

    The error is the largest absolute difference, divided by the largest absolute value of
    `expected` unless `absolute` is set or that value is 0.
    """
    got = np.asarray(got)
    if got.shape != expected.shape:
        shapes = f"shape {list(got.shape)}, expected {list(expected.shape)}"
        return Result(what, Verdict.FAILED, None, bound, shapes, absolute)
    reference = expected.astype(np.float64)
    error = float(np.abs(got.astype(np.float64) - reference).max(initial=0.0))
    scale = 1.0 if absolute else float(np.abs(reference).max(initial=0.0)) or 1.0
    error /= scale
    passed = error <= bound  # False for NaN
    return Result(what, Verdict.OK if passed else Verdict.FAILED, error, bound, note, absolute)


def worst(what: str, results: list[Result]) -> Result:
    """The result with the largest error, under another name, or a failure among them."""
    chosen = max(
        results,
        key=lambda result: (
            result.verdict.fails,
            result.error is None or np.isnan(result.error),
            result.error or 0.0,
        ),
    )
    return dataclasses.replace(chosen, what=what)
