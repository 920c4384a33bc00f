"""Runs of train.py in which groups of layers have learning rates of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.training.conftest import Run

Train = Callable[..., Run]
UNET = Path("unet") / "diffusion_pytorch_model.safetensors"
GIVEN: tuple[Any, ...] = ("--learning_rate_factors", "0.5,down1=0,up0=2")


def test_factors_of_one_change_no_bit(unbroken: Run, train: Train) -> None:
    run = train("--learning_rate_factors", "1,down1=1", "--max_train_steps", 3)
    assert run.status == 0, run.stderr
    assert "learning rate x" not in run.stderr
    assert run.losses == unbroken.losses[:3]


@pytest.mark.slow
def test_a_run_with_them_resumes_with_the_same_bits(train: Train, tmp_path: Path) -> None:
    whole = train(*GIVEN, "--output_dir", tmp_path / "whole")
    assert whole.status == 0, whole.stderr
    assert "learning rate x 0.5 for " in whole.stderr and " stay as they are" in whole.stderr
    train(*GIVEN, "--output_dir", tmp_path / "parts", "--max_train_steps", 2)
    resumed = train(*GIVEN, "--output_dir", tmp_path / "parts")
    assert "going on from step 2 " in resumed.stderr
    assert "learning_rate_factors" not in resumed.stderr
    assert resumed.losses == whole.losses
    # Others go on from there too, and that is said.
    other = train("--output_dir", tmp_path / "parts", "--max_train_steps", 5)
    assert other.status == 0, other.stderr
    assert "learning_rate_factors {'all': 0.5, 'down1': 0.0, 'up0': 2.0} -> None" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "prodigy", "schedule_free"])
def test_what_has_none_is_as_if_it_were_not_trained(
    train: Train, tiny_checkpoint: Path, tmp_path: Path, optimizer: str
) -> None:
    given = ("--optimizer", optimizer, "--adam_weight_decay", 0.1, "--max_grad_norm", 1e-3)
    alone = train(*given, "--output_dir", tmp_path / "alone")
    both = train(
        *given, "--output_dir", tmp_path / "both", "--train", "unet",
        "--learning_rate_factors", "spatial=0",
    )  # fmt: skip
    assert alone.status == both.status == 0, both.stderr
    # float32 sums of another program.
    for (step, *found), (_, *wanted) in zip(both.losses, alone.losses, strict=True):
        assert found == pytest.approx(wanted, rel=1e-5), step
    start, end = (load_file(folder / UNET) for folder in (tiny_checkpoint, both.output / "export"))
    changed = {name for name in start if not np.array_equal(start[name], end[name])}
    assert changed and all("temporal_attentions" in name for name in changed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("temporal=-1", "--learning_rate_factors of temporal is -1.0; expected a number from 0"),
        ("temporal=nan", "--learning_rate_factors of temporal is nan; expected a number from 0"),
        ("temporal=1,temporal=2", "temporal is given twice"),
        ("temporl=1", "there is no group 'temporl' (did you mean temporal?)"),
        ("fast", "expected GROUP=NUMBER"),
    ],
)
def test_nonsense_is_refused_before_anything_is_written(
    train: Train, given: str, message: str
) -> None:
    run = train("--learning_rate_factors", given)
    assert run.status == 2, run.stderr
    assert message in run.stderr and not run.output.exists()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("spatial=2", "--learning_rate_factors: nothing of spatial trains in this run"),
        ("down9=2", "What does is in unet, temporal, attention"),
        ("conv_in*=2", "--learning_rate_factors: nothing of conv_in* trains"),
        ("attention=2,down=3", "Say what holds for both by "),
        ("temporal=0", "--learning_rate_factors is 0 for all that trains"),
    ],
)
def test_what_the_model_has_not_is_refused_before_its_weights_are_read(
    train: Train, given: str, message: str
) -> None:
    run = train("--learning_rate_factors", given)
    assert run.status == 2, run.stderr
    assert message in run.stderr
    assert "loading" not in run.stderr
