"""On a mesh each optimiser does what it does on one device, and its state moves to another mesh."""

from pathlib import Path

import pytest

from hotshot_jax.choices import OPTIMIZERS
from tests.parallel.simulated_devices import run


@pytest.mark.slow
def test_updates_and_checkpoints(tmp_path: Path) -> None:
    # Where factors are more than that of the whole step.
    grouped = [f"{name} with factors" for name in ("adafactor", "prodigy", "schedule_free")]
    results = run("sharded_optimizers.py", [str(tmp_path), *OPTIMIZERS, *grouped])
    assert set(results) == {*OPTIMIZERS, *grouped}
    for name, result in results.items():
        # Float32 sums in another order; a moment of one byte may round to its neighbour.
        most = 0.02 if name == "adamw_8bit" else 1e-4
        assert result["error"] < most and result["error_on_four"] < most, (name, result)
        assert result["restored"], name
