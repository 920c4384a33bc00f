"""Flags that cannot act are refused where the command line gives them, and nowhere else."""

import dataclasses
from pathlib import Path

import pytest

from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.cli.convert import command as convert
from hotshot_jax.cli.data.command import build, inspect
from hotshot_jax.cli.flags import given_flags
from hotshot_jax.cli.train.checks import Planned, check_effects, check_effects_of, checked_rank
from hotshot_jax.cli.train.settings import TrainSettings, parse_train_settings
from hotshot_jax.convert.builders import model_builder
from hotshot_jax.convert.load import abstract
from hotshot_jax.errors import UsageError
from hotshot_jax.training.running.loop import LoopConfig
from hotshot_jax.training.trainees.lora import LoraTrainee
from tests.data.clips import write_data
from tests.tiny_checkpoint import tiny_configs

STEPS = 50


def check(arguments: str, platform: str = "cpu") -> None:
    listed = ["--data_dir", "x", *arguments.split()]
    settings = parse_train_settings(listed, "train.py")
    check_effects(given_flags(listed), settings)
    check_effects_of(given_flags(listed), Planned(settings, STEPS, platform))


@pytest.mark.parametrize(
    "arguments",
    [
        "--lora_rank 4",
        "--lora_targets both",
        "--lora_layers all --train unet",
        "--w_min 1",
        "--w_max 4 --train lora",
        "--num_ddim_timesteps 20",
        "--timestep_scaling_factor 1",
        "--huber_c 0.1 --loss huber",
        "--lcm_target student",
        "--huber_c 0.1 --train lcm",
        "--noise_offset 0.1 --train lcm",
        "--snr_gamma --train lcm",
        "--control_type canny --train unet",
        "--canny_low_threshold 3",
        "--lr_warmup_steps 10",
        "--num_train_epochs 2 --max_train_steps 50",
        "--snr_weights paper",
        "--gradient_checkpointing --remat dots",
        "--max_vae_encode 1 --cache_dir c",
        "--validation_batches 1 --validate_every_steps 5",
        "--validation_steps 1 --validate_every_steps 5 --test_prompts=",
        "--validate_every_steps 5 --test_prompts=",
        "--run_validation_at_start --test_prompts=|",
        "--project_name p --report_to none",
        "--hub_private",
        "--run_name r --report_to tensorboard",
        "--logging_dir l --report_to wandb",
        "--disable_optimizer_restore --resume none",
        # In a run of 50 steps.
        "--save_n_steps 10",
        "--save_starting_step 51",
        "--profile_steps 60:70",
        "--profile_steps 40:51",
        "--validate_every_steps 51",
        "--test_prompts a",
        "--test_prompts a --validate_every_steps 0",
        "--validation_data v",
        "--validation_steps 3",
        "--compile_effort O2",
    ],
)
def test_training(arguments: str) -> None:
    with pytest.raises(
        UsageError, match=r"^--[a-z_0-9]+ has no effect .*\. Leave it out\.$"
    ) as raised:
        check(arguments)
    flag = str(raised.value).split()[0]
    assert flag in arguments


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--train lora --lora_rank 4 --lora_targets both",
        "--train lora --lora_layers all",
        "--train lora --train_text_encoder",
        "--train lcm --lora_rank 4 --w_min 4 --w_max 4 --num_ddim_timesteps 20 --lora_layers all",
        "--train lcm --loss huber --huber_c 0.1 --timestep_scaling_factor 1",
        "--train lcm --ema_decay 0.9 --lcm_target ema --text_dropout 0.1",
        "--train controlnet --canny_high_threshold 90 --control_type canny",
        "--lr_warmup_steps 0",
        "--lr_warmup_steps 10 --lr_scheduler constant_with_warmup",
        "--num_train_epochs 2",
        "--gradient_checkpointing --remat blocks",
        "--no-gradient_checkpointing --remat dots",
        "--save_n_steps 10 --save_starting_step 10",
        "--save_n_steps 10 --save_starting_step 0",
        "--save_n_steps 0 --save_starting_step 100",
        "--profile_steps 40:50",
        "--validate_every_steps 0 --test_prompts=",
        "--run_validation_at_start --test_prompts a --validation_steps 3",
        "--validate_every_steps 50 --validation_data v --validation_batches 3",
        "--push_to_hub org/name --hub_private",
        "--report_to all --project_name p --run_name r --logging_dir l",
        "--run_name r",
        "--disable_optimizer_restore",
    ],
)
def test_training_that_can(arguments: str) -> None:
    check(arguments)


def test_effort_acts_on_tpus() -> None:
    check("--compile_effort O2", "tpu")


def test_settings_that_are_fed_back_stay_silent(tmp_path: Path) -> None:
    import yaml

    settings = dataclasses.asdict(dataclasses.replace(TrainSettings(), data_dir="x", lora_rank=9))
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(settings))
    check(f"--config {tmp_path / 'config.yaml'}")


@pytest.mark.parametrize("targets", ["spatial", "temporal"])
def test_a_rank_above_that_of_every_matrix(targets: str) -> None:
    unet = abstract(model_builder("unet", tiny_configs()["unet"], where="unet"))
    largest = LoraTrainee.of(unet, targets, 1).largest_rank
    assert 4 <= largest <= 128
    trainee = LoraTrainee.of(unet, targets, largest + 1)
    assert checked_rank((), trainee) is trainee
    fits = LoraTrainee.of(unet, targets, largest)
    assert checked_rank(("lora_rank",), fits) is fits
    with pytest.raises(UsageError, match=f"no effect beyond {largest}"):
        checked_rank(("lora_rank",), trainee)


def test_a_first_step_of_zero_saves_at_every_interval() -> None:
    when = LoopConfig(20, save_every=5, save_from=0)
    assert [step for step in range(1, 21) if when.saves(step)] == [5, 10, 15, 20]
    when = LoopConfig(20, save_every=5, save_from=7)
    assert [step for step in range(1, 21) if when.saves(step)] == [7, 12, 17]


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        ("--kind shapes --length 2 --duration 5", "duration"),
        ("--kind shapes --length 2 --source x", "source"),
        ("--kind shapes --length 2 --on_bad_sample skip", "on_bad_sample"),
        ("--source data --length 2", "length"),
        ("--source data --split all", "split"),
        ("--source data --clips_per_video 2", "clips_per_video"),
        ("--source data --picture_format jpeg", "picture_format"),
        ("--source data --kind videos --seed 1", "seed"),
    ],
)
def test_building(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    flag: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path / "data", [(16, 16)], frames=8)
    assert build([*arguments.split(), "--output", "out"]) == 2
    assert f"--{flag} has no effect" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flag", ["clips", "seed"])
def test_inspecting(tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str) -> None:
    write_data(tmp_path, [(16, 16)], frames=8)
    assert inspect([str(tmp_path), "--contact_sheet", "", f"--{flag}", "3"]) == 2
    assert f"--{flag} has no effect" in capsys.readouterr().err


def test_converting(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.safetensors").write_text("")
    for arguments, flag in (
        (["x", "y", "--temporal", "hotshot", "--to-torch"], "to-torch"),
        (["x", "y", "--temporal", "hotshot", "--dtype", "f16"], "dtype"),
        (["x", "y", "--to-torch", "--dtype", "f16"], "dtype"),
        ([str(tmp_path / "a.safetensors"), "y", "--variant", "fp16"], "variant"),
    ):
        assert convert.main(arguments) == 2
        assert f"--{flag} has no effect" in capsys.readouterr().err
    assert convert.main([str(builtin_checkpoint()), str(tmp_path / "ours")]) == 0
    given = [str(tmp_path / "ours"), str(tmp_path / "torch"), "--to-torch", "--variant", "fp16"]
    assert convert.main(given) == 2
