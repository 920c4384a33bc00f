"""Steps of the PyTorch reference, repeated."""

from pathlib import Path

import jax
import pytest

from benchmarks.parity_cases import train_step
from benchmarks.parity_cases.case import Case, Verdict

CASE = Path(__file__).parents[2] / "golden" / "cases" / "train_step.json"


@pytest.mark.slow
def test_loss_gradients_and_parameters_equal_the_reference_s() -> None:
    case = Case(CASE)
    with jax.default_matmul_precision("highest"):
        results = list(train_step.run(case))
    assert [(r.what, r.error) for r in results if r.verdict != Verdict.OK] == []
    assert len(results) == 21
    assert case.unread == []
