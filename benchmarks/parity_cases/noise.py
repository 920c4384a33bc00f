"""PyTorch's random numbers."""

from collections.abc import Iterator

import ml_dtypes
import numpy as np

from benchmarks.parity_cases.case import EXACT, Case, Result, Verdict
from hotshot_jax.sampling.torch_noise import TorchGenerator

_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def matches(case: Case) -> bool:
    """Whether the case lists draws of generators."""
    calls = case.description.get("calls")
    return isinstance(calls, list) and all({"seed", "dtype", "shape"} <= set(c) for c in calls)


def run(case: Case) -> Iterator[Result]:
    """Compares the bits of every draw; one line for each generator."""
    generators: dict[tuple[int, str], list[dict]] = {}
    for call in case.description["calls"]:
        generators.setdefault((call["seed"], call["dtype"]), []).append(call)
    for (seed, dtype), calls in generators.items():
        generator = TorchGenerator(seed)
        wrong = total = 0
        for call in calls:
            got = generator.randn(tuple(call["shape"]), _DTYPES[dtype])
            expected = case[call["tensor"]]
            bits = np.dtype(f"u{expected.dtype.itemsize}")
            same = got.dtype == expected.dtype and got.shape == expected.shape
            wrong += int((got.view(bits) != expected.view(bits)).sum()) if same else expected.size
            total += expected.size
        yield Result(
            f"seed {seed}, {dtype}",
            Verdict.OK if wrong == 0 else Verdict.FAILED,
            wrong / total,
            EXACT,
            f"{len(calls)} draws, {total} numbers, bit by bit",
        )
