"""A run over several data sets, with all that changes clips by chance, goes on bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.clips import write_data
from tests.training.conftest import Run

Train = Callable[..., Run]


@pytest.mark.slow
def test_a_run_over_several_data_sets_goes_on_bit_for_bit(train: Train, tmp_path: Path) -> None:
    write_data(tmp_path / "a", [(24, 16)] * 3, frames=8)
    write_data(tmp_path / "b", [(16, 16)] * 2, frames=8)
    given: tuple[Any, ...] = ("--frame_stride", 2, "--mirror", "--random_crop", "--shuffle_tags")
    given += ("--trigger_words", "zzz", "--tag_dropout", 0.3, "--aspect_ratio", "1.00")
    mix = ("--data_dir", f"{tmp_path}/a?weight=1", "--data_dir", f"{tmp_path}/b?weight=3")
    whole = train(*mix, *given, "--output_dir", tmp_path / "whole", "--max_train_steps", 6)
    assert whole.status == 0, whole.stderr
    parts = tmp_path / "parts"
    for steps in (2, 3, 6):
        run = train(*mix, *given, "--output_dir", parts, "--max_train_steps", steps)
        assert run.status == 0, run.stderr
    assert run.losses == whole.losses
    other = (*mix[:3], f"{tmp_path}/b?weight=2")
    refused = train(*other, *given, "--output_dir", parts, "--max_train_steps", 7)
    assert refused.status == 1 and "mix was [[3, 1, 1.0], [2, 1, 3.0]]" in refused.stderr
    (tmp_path / "b").rename(tmp_path / "moved")
    gone = train(*mix, *given, "--output_dir", parts, "--max_train_steps", 7)
    assert gone.status == 2 and f"{tmp_path}/b does not exist" in gone.stderr
