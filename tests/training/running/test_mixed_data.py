"""A run over several data sets, with all that changes clips by chance, goes on bit for bit."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.training.conftest import Run, mixed_data

Train = Callable[..., Run]


@pytest.mark.slow
def test_a_run_over_several_data_sets_goes_on_bit_for_bit(train: Train, tmp_path: Path) -> None:
    data = mixed_data(tmp_path)
    whole = train(*data, "--output_dir", tmp_path / "whole", "--max_train_steps", 6)
    assert whole.status == 0, whole.stderr
    parts = tmp_path / "parts"
    for steps in (2, 3, 6):
        run = train(*data, "--output_dir", parts, "--max_train_steps", steps)
        assert run.status == 0, run.stderr
    assert run.losses == whole.losses
    other = [str(each).replace("weight=3", "weight=2") for each in data]
    refused = train(*other, "--output_dir", parts, "--max_train_steps", 7)
    assert refused.status == 1 and "mix was [[3, 1, 1.0], [2, 1, 3.0]]" in refused.stderr
    (tmp_path / "b").rename(tmp_path / "moved")
    gone = train(*data, "--output_dir", parts, "--max_train_steps", 7)
    assert gone.status == 2 and f"{tmp_path}/b does not exist" in gone.stderr
