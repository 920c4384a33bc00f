"""The weight formula against the published check values."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.models.formula_weights import formula_source, formula_tensor, read_shapes

GOLDEN = Path(__file__).parents[1] / "golden"
CHECKS = json.loads((GOLDEN / "seeded_weights_check.json").read_text())


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: f"{check['name']}-{check['seed']}")
def test_published_values(check: dict) -> None:
    tensor = formula_tensor(check["name"], tuple(check["shape"]), check["seed"])
    assert tensor.dtype == np.float32
    assert tensor.shape == tuple(check["shape"])
    assert tensor.ravel()[:4].tolist() == check["first4"]
    assert float(tensor.ravel()[-1]) == check["last"]
    assert float(tensor.astype(np.float64).sum()) == pytest.approx(check["sum_float64"], rel=1e-12)


def test_source_lists_learned_tensors_only() -> None:
    shapes = read_shapes(GOLDEN / "models" / "temporal_c64.shapes.json")
    assert len(shapes) == 26
    assert not any("positional_encoding" in name for name in shapes)
    source = formula_source(shapes, 3, Path("nowhere"))
    assert source.names == tuple(shapes)
    for name, shape in shapes.items():
        assert source.shape(name) == shape
    np.testing.assert_array_equal(
        source.read("proj_in.weight"), formula_tensor("proj_in.weight", (64, 64), 3)
    )
