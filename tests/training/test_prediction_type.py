"""Training a checkpoint to find something else than it was trained to find."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hotshot_jax.cli.train.checks import check_settings
from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.errors import UsageError
from tests.training.conftest import Run

CONFIG = "scheduler/scheduler_config.json"


@pytest.mark.slow
def test_it_trains_and_exports_like_a_checkpoint_that_says_so(
    train: Callable[..., Run], tiny_checkpoint: Path, tmp_path: Path
) -> None:
    given = ("--max_train_steps", 2)
    run = train(*given, "--prediction_type", "v_prediction", "--output_dir", tmp_path / "flag")
    assert run.status == 0, run.stderr
    written = json.loads((run.output / "export" / CONFIG).read_text())
    before = json.loads((tiny_checkpoint / CONFIG).read_text())
    assert before["prediction_type"] == "epsilon"
    assert written == before | {"prediction_type": "v_prediction"}

    changed = tmp_path / "changed"
    shutil.copytree(tiny_checkpoint, changed)
    (changed / CONFIG).write_text(json.dumps(written))
    same = train(
        *given, "--pretrained_model_name_or_path", changed, "--output_dir", tmp_path / "config"
    )
    assert same.losses == run.losses
    assert same.losses != train(*given, "--output_dir", tmp_path / "epsilon").losses


@pytest.mark.parametrize("kind", ["lora", "controlnet"])
def test_it_is_refused_where_no_checkpoint_could_say_so(kind: str) -> None:
    given = ["--data_dir", "x", "--train", kind, "--prediction_type", "v_prediction"]
    with pytest.raises(UsageError, match=f"--train {kind} leaves the UNet as it is"):
        check_settings(parse_train_settings(given, "train.py"))
