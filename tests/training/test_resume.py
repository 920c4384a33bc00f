"""Runs that were stopped go on as if they had not been."""

import json
import random
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.training.conftest import Run, signal_after, start

Train = Callable[..., Run]


def test_killed_and_resumed_the_losses_are_the_same_bits(
    flags: dict[str, str], unbroken: Run, train: Train, tmp_path: Path
) -> None:
    assert unbroken.status == 0
    output = tmp_path / "killed"
    process = start(flags, "--output_dir", output, "--max_train_steps", 100_000)
    signal_after(process, output / "metrics.jsonl", 3, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    # What came after the checkpoint is written again; a line may have been cut short.
    with (output / "metrics.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    checkpoints = [int(p.name) for p in (output / "checkpoints").iterdir() if p.name.isdigit()]
    last = max(checkpoints, default=0)
    steps = max(8, last + 1)
    resumed = train("--output_dir", output, "--max_train_steps", steps)
    assert resumed.status == 0, resumed.stderr
    assert f"going on from step {last} " in resumed.stderr or not last
    assert [step for step, *_ in resumed.losses] == list(range(1, steps + 1))
    assert resumed.losses[:8] == unbroken.losses


@pytest.mark.slow
def test_ten_kills_lose_nothing(flags: dict[str, str], train: Train, tmp_path: Path) -> None:
    steps = 60
    whole = train("--output_dir", tmp_path / "whole", "--max_train_steps", steps)
    output = tmp_path / "killed"
    moments = random.Random(0)
    for kill in range(10):
        process = start(flags, "--output_dir", output, "--max_train_steps", steps)
        lines = min(steps - 2, 2 + 5 * kill + moments.randrange(4))
        signal_after(process, output / "metrics.jsonl", lines, signal.SIGKILL)
    resumed = train("--output_dir", output, "--max_train_steps", steps)
    assert resumed.losses == whole.losses


def test_sigterm_saves_and_the_same_command_goes_on(
    flags: dict[str, str], unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "stopped"
    given: list[Any] = ["--output_dir", output, "--save_n_steps", 0]
    process = start(flags, *given, "--max_train_steps", 100_000)
    told = signal_after(process, output / "metrics.jsonl", 2, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in told
    (saved,) = [p for p in (output / "checkpoints").iterdir() if p.name.isdigit()]
    last = int(saved.name)
    assert f"stopped by SIGTERM; step {last} is saved, and the same command goes on" in told
    resumed = train(*given, "--max_train_steps", max(8, last + 1))
    assert f"going on from step {last} " in resumed.stderr
    assert resumed.losses[:8] == unbroken.losses


def test_a_half_written_checkpoint_is_passed_over(
    unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(unbroken.output, output)
    # As Orbax names what it is writing.
    newest = output / "checkpoints" / "8"
    newest.rename(output / "checkpoints" / "8.orbax-checkpoint-tmp-1")
    resumed = train("--output_dir", output, "--max_train_steps", 8)
    assert "going on from step 7 " in resumed.stderr
    assert resumed.losses == unbroken.losses


# Orbax leaves threads behind that find their event loop closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_an_error_and_not_a_new_start(
    unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(unbroken.output, output)
    for file in (output / "checkpoints" / "8" / "state").rglob("d/*"):
        file.unlink()
    run = train("--output_dir", output, "--max_train_steps", 9)
    assert run.status == 1
    assert "checkpoints/8 cannot be restored: it is damaged" in run.stderr
    assert "--resume PATH" in run.stderr and "Traceback" not in run.stderr
    assert len(run.losses) == 8
    earlier = train(
        "--output_dir", tmp_path / "again", "--resume", output / "checkpoints" / "7",
        "--max_train_steps", 8,
    )  # fmt: skip
    assert earlier.losses == unbroken.losses[7:]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--train", "spatial"), "train was temporal and is spatial"),
        (("--use_8bit_adam",), "use_8bit_adam was False and is True"),
        (("--train_batch_size", "1"), "batch_size was 2 and is 1"),
        (("--seed", "5"), "seed was 111 and is 5"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    unbroken: Run, train: Train, given: tuple[str, ...], message: str
) -> None:
    run = train("--output_dir", unbroken.output, "--max_train_steps", "9", *given)
    assert run.status == 1 and message in run.stderr
    assert len(run.losses) == 8


def test_another_model_is_refused(
    unbroken: Run, train: Train, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors["conv_out.bias"] = tensors["conv_out.bias"] + np.float32(1)
    save_file(tensors, weights, {"format": "pt"})
    run = train(
        "--output_dir", unbroken.output, "--max_train_steps", "9",
        "--pretrained_model_name_or_path", model,
    )  # fmt: skip
    assert run.status == 1 and "started from is another one" in run.stderr


@pytest.mark.parametrize(
    ("make", "message", "status"),
    [
        (lambda path: None, "there is no such folder", 2),
        (lambda path: path.mkdir(), "holds no complete checkpoint", 1),
        (lambda path: (path / "checkpoints").mkdir(parents=True), "no complete checkpoint", 1),
    ],
)
def test_resuming_from_nothing_is_refused(
    train: Train, tmp_path: Path, make: Callable[[Path], None], message: str, status: int
) -> None:
    make(tmp_path / "other")
    run = train("--resume", tmp_path / "other")
    assert run.status == status and message in run.stderr


def test_a_new_start_over_old_checkpoints_is_refused(unbroken: Run, train: Train) -> None:
    run = train("--output_dir", unbroken.output, "--resume", "none")
    assert run.status == 2 and "holds checkpoints up to step 8" in run.stderr


@pytest.mark.slow
def test_moments_can_be_left_behind(unbroken: Run, train: Train, tmp_path: Path) -> None:
    with_moments = train(
        "--output_dir", tmp_path / "a", "--resume", unbroken.output, "--max_train_steps", 10
    )
    without = train(
        "--output_dir", tmp_path / "b", "--resume", unbroken.output, "--max_train_steps", 10,
        "--disable_optimizer_restore",
    )  # fmt: skip
    # The first loss is that of the same parameters, the second is not.
    assert with_moments.losses[0] == without.losses[0]
    assert with_moments.losses[1][1] != without.losses[1][1]


def test_settings_are_saved_and_can_be_given_again(unbroken: Run, train: Train) -> None:
    import yaml

    saved = yaml.safe_load((unbroken.output / "config.yaml").read_text())
    assert saved["learning_rate"] == 1e-3 and saved["max_train_steps"] == 8
    run = train("--config", unbroken.output / "config.yaml", "--output_dir", unbroken.output)
    assert run.status == 0
    assert json.loads((unbroken.output / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 8
