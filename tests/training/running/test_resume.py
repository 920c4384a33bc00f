"""Runs that were stopped go on as if they had not been."""

import contextlib
import dataclasses
import errno
import json
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from hotshot_jax.cli.train import resume as resuming
from hotshot_jax.cli.train.resume import Identity, changed_settings, checkpoints_to_resume
from hotshot_jax.cli.train.settings import NO_LIMIT, TrainSettings
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.training.running.checkpoint import DamagedCheckpointError, Saved
from hotshot_jax.training.running.output_lock import only_training_in
from tests.training.conftest import Run, mixed_data, signal_after, start

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
@pytest.mark.parametrize("mixed", [False, True], ids=["plain", "mixed data"])
def test_ten_kills_lose_nothing(
    flags: dict[str, str], train: Train, tmp_path: Path, mixed: bool
) -> None:
    steps = 60
    data = mixed_data(tmp_path) if mixed else ()
    whole = train(*data, "--output_dir", tmp_path / "whole", "--max_train_steps", steps)
    output = tmp_path / "killed"
    moments = random.Random(0)
    for kill in range(10):
        process = start(flags, *data, "--output_dir", output, "--max_train_steps", steps)
        lines = min(steps - 2, 2 + 5 * kill + moments.randrange(4))
        signal_after(process, output / "metrics.jsonl", lines, signal.SIGKILL)
    resumed = train(*data, "--output_dir", output, "--max_train_steps", steps)
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


def lose_arrays(checkpoint: Path) -> None:
    for file in (checkpoint / "state").rglob("d/*"):
        file.unlink()


# Orbax leaves threads behind that find their event loop closed.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_of_damaged_checkpoints_the_one_before_is_taken(
    unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    checkpoints = output / "checkpoints"
    shutil.copytree(unbroken.output, output)
    lose_arrays(checkpoints / "8")
    run = train("--output_dir", output, "--max_train_steps", 8, "--save_starting_step", 2)
    assert run.status == 0 and "Traceback" not in run.stderr
    assert "checkpoints/8 cannot be restored: it is damaged" in run.stderr
    assert "going on from step 7 " in run.stderr
    (other,) = [line for line in run.stderr.splitlines() if "other settings than there: " in line]
    assert "save_starting_step 1 -> 2" in other
    assert run.losses == unbroken.losses
    # Nothing is lost: it lies beside the one that was written in its place.
    assert sorted(path.name for path in checkpoints.iterdir()) == ["7", "8", "set-aside-8"]
    assert f"set aside as {checkpoints}/set-aside-8" in run.stderr

    for step in "78":
        lose_arrays(checkpoints / step)
    lost = train("--output_dir", output, "--max_train_steps", 9)
    assert lost.status == 1 and "Traceback" not in lost.stderr
    assert f"No checkpoint can be restored (tried {checkpoints}/8, {checkpoints}/7)" in lost.stderr
    assert len(lost.losses) == 8


def test_an_earlier_checkpoint_of_the_same_output_can_be_named(
    unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "copy"
    shutil.copytree(unbroken.output, output)
    (tmp_path / "link").symlink_to(output)
    named = tmp_path / "link" / "checkpoints" / ".." / "checkpoints" / "7"
    run = train("--output_dir", output, "--resume", named, "--max_train_steps", 8)
    assert run.status == 0, run.stderr
    assert "going on from step 7 " in run.stderr and "set-aside-8" in run.stderr
    assert run.losses == unbroken.losses
    refused = train("--output_dir", output, "--resume", unbroken.output)
    assert refused.status == 2 and f"--resume {output}/checkpoints/7" in refused.stderr


def test_two_trainings_do_not_share_an_output(unbroken: Run, train: Train, tmp_path: Path) -> None:
    output = tmp_path / "copy"
    shutil.copytree(unbroken.output, output)
    with only_training_in(output):
        run = train("--output_dir", output, "--max_train_steps", 9)
    assert run.status == 2 and "another training is writing there (process " in run.stderr
    assert len(run.losses) == 8 and not (output / ".lock").exists()


def test_the_lock_is_gone_with_its_process_and_not_with_its_file(tmp_path: Path) -> None:
    (tmp_path / ".lock").write_text("of a process that was killed")
    with only_training_in(tmp_path):
        with pytest.raises(UsageError, match="another training"), only_training_in(tmp_path):
            pass
        # The one that was refused has not removed it.
        assert (tmp_path / ".lock").exists()
    no_locks = OSError(errno.ENOLCK, "No locks available")
    with mock.patch("fcntl.flock", side_effect=no_locks), only_training_in(tmp_path):
        pass


@pytest.mark.parametrize(
    "other",
    [
        {
            ("--train", "spatial"): "train was temporal and is spatial",
            ("--use_8bit_adam",): "optimizer was adamw and is adamw_8bit",
            (
                "--prediction_type",
                "v_prediction",
            ): "prediction_type was epsilon and is v_prediction",
        },
        # What decides the order of the data is looked at by the loader.
        {
            ("--train_batch_size", "1"): "batch_size was 2 and is 1",
            ("--seed", "5"): "seed was 111 and is 5",
        },
    ],
)
def test_resuming_with_other_settings_is_refused(
    unbroken: Run, train: Train, other: dict[tuple[str, ...], str]
) -> None:
    given = (part for flag in other for part in flag)
    run = train("--output_dir", unbroken.output, "--max_train_steps", "9", *given)
    assert run.status == 1
    for message in other.values():
        assert message in run.stderr
    assert len(run.losses) == 8


def test_with_other_data_it_goes_on_from_their_beginning_where_that_is_asked(
    unbroken: Run, train: Train, tmp_path: Path
) -> None:
    output = tmp_path / "again"
    shutil.copytree(unbroken.output, output)
    given = ["--output_dir", output, "--resume_data", "restart", "--seed", "5"]
    run = train(*given, "--max_train_steps", "9")
    assert run.status == 0, run.stderr
    assert "going on from step 8" in run.stderr
    assert "the data from their beginning: seed was 111 and is 5" in run.stderr
    assert len(run.losses) == 9 and run.metrics[-1]["epoch"] == 0
    # The same command goes on: the position is one in these data now.
    run = train(*given, "--max_train_steps", "10")
    assert run.status == 0 and "from their beginning" not in run.stderr
    assert len(run.losses) == 10
    epochs = train(*given, "--max_train_steps", NO_LIMIT)
    assert epochs.status == 2 and "--resume_data restart needs --max_train_steps" in epochs.stderr


def change_tensor(file: Path, name: str) -> None:
    tensors = load_file(file)
    tensors[name] = tensors[name] + np.float32(1)
    save_file(tensors, file, {"format": "pt"})


def swap_words(file: Path) -> None:
    words = json.loads(file.read_text())
    first, second = list(words)[10:12]
    words[first], words[second] = words[second], words[first]
    file.write_text(json.dumps(words))


def change_everything(model: Path) -> None:
    change_tensor(model / "unet" / "diffusion_pytorch_model.safetensors", "conv_out.weight")
    change_tensor(model / "vae" / "diffusion_pytorch_model.safetensors", "encoder.conv_in.weight")
    swap_words(model / "tokenizer" / "vocab.json")
    write_scheduler(model, rescale_betas_zero_snr=True, prediction_type="v_prediction")


@pytest.mark.parametrize(
    ("change", "messages"),
    [
        (
            lambda model: change_tensor(
                model / "unet" / "diffusion_pytorch_model.safetensors", "conv_out.bias"
            ),
            ("the model that it started from is another one",),
        ),
        (
            change_everything,
            (
                "the unet",
                "the vae",
                "the tokenizer",
                "that it started from is another one",
                "the noise schedule (scheduler_config.json) is another one",
                "prediction_type was epsilon and is v_prediction",
            ),
        ),
    ],
)
def test_another_model_is_refused(
    unbroken: Run,
    train: Train,
    tiny_checkpoint: Path,
    tmp_path: Path,
    change: Callable[[Path], None],
    messages: tuple[str, ...],
) -> None:
    model = tmp_path / "model"
    shutil.copytree(tiny_checkpoint, model)
    change(model)
    run = train(
        "--output_dir", unbroken.output, "--max_train_steps", "9",
        "--pretrained_model_name_or_path", model,
    )  # fmt: skip
    assert run.status == 1
    (told,) = [line for line in run.stderr.splitlines() if "cannot be resumed: " in line]
    for message in messages:
        assert message in told.partition("cannot be resumed: ")[2]


def write_scheduler(model: Path, **changes: Any) -> None:
    file = model / "scheduler" / "scheduler_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def test_what_older_checkpoints_do_not_tell_is_taken_as_it_was_then() -> None:
    identity = Identity("v_prediction", "epsilon", 1, 2, {"vae": 3})
    assert identity.changes({"settings": {"prediction_type": "v_prediction"}, "model": 2}) == []
    (change,) = identity.changes({"settings": {}, "model": 2})
    assert change == "prediction_type was epsilon and is v_prediction"
    before = dataclasses.asdict(TrainSettings()) | {"resume": "none", "process_index": 1}
    del before["snr_weights"]
    assert changed_settings(before, TrainSettings()) == ["snr_weights reference -> paper"]


class Listed:
    """Checkpoints of an output, as one host lists them."""

    def __init__(self, folder: Path, *steps: int):
        self.folder = folder
        self.complete = [Saved(folder, step) for step in steps]


def test_what_the_first_host_finds_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resuming, "first_of_all_hosts", lambda text: "[3, 2]")
    settings = TrainSettings(resume="auto")
    for steps in ((4, 3, 2), (2,), ()):
        found = checkpoints_to_resume(settings, Listed(tmp_path, *steps))  # type: ignore[arg-type]
        assert found == [Saved(tmp_path, 3), Saved(tmp_path, 2)]


def test_hosts_restore_together_what_all_of_them_could_look_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that fails before must not wait for the others while they wait within Orbax."""
    done: list[str] = []

    @contextlib.contextmanager
    def failing_together(kind: type[Exception]) -> Iterator[None]:
        try:
            yield
        finally:
            done.append("all have come so far")

    def restore(saved: Saved, state: object) -> None:
        done.append(f"restored {saved.step}")
        raise DamagedCheckpointError("torn")

    monkeypatch.setattr(resuming, "failing_together", failing_together)
    monkeypatch.setattr(resuming, "read_metadata", lambda saved: done.append(f"read {saved.step}"))
    monkeypatch.setattr(resuming, "_check", lambda *given: None)
    monkeypatch.setattr(resuming, "restore", restore)
    candidates = [Saved(tmp_path, 2), Saved(tmp_path, 1)]
    nothing: Any = None
    with pytest.raises(HotshotError, match="No checkpoint can be restored"):
        resuming.resume(TrainSettings(), candidates, nothing, nothing, nothing)
    assert done == [
        *("read 2", "all have come so far", "restored 2", "all have come so far"),
        *("read 1", "all have come so far", "restored 1", "all have come so far"),
    ]


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
