"""Whole runs of train.py: what they leave behind, and how they end when something is wrong."""

import filecmp
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from hotshot_jax.cli.data.command import build as build_data
from hotshot_jax.cli.train.plan import step_count, warn_of_small_buckets
from hotshot_jax.cli.train.settings import NO_LIMIT, TrainSettings
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.open_data import open_data
from hotshot_jax.errors import HotshotError
from hotshot_jax.training.feeding.cache import Cache, model_digest
from hotshot_jax.training.running.checkpoint import find, read_metadata
from hotshot_jax.training.running.loop import Loop, LoopConfig
from hotshot_jax.training.running.step import StepConfig
from tests.data.clips import write_data, write_sample
from tests.training.conftest import Run, start

Train = Callable[..., Run]


def test_what_a_run_leaves_behind(unbroken: Run) -> None:
    assert unbroken.status == 0
    assert sorted(path.name for path in unbroken.output.iterdir()) == [
        "checkpoints", "config.yaml", "export", "loss.png", "metrics.jsonl", "summary.json",
    ]  # fmt: skip
    kept = sorted(path.name for path in (unbroken.output / "checkpoints").iterdir())
    assert kept == ["7", "8"]
    assert [m["step"] for m in unbroken.metrics] == list(range(1, 9))
    last = unbroken.metrics[-1]
    assert last["learning_rate"] == pytest.approx(1e-3)
    assert last["samples_per_second"] > 0 and last["step_seconds"] > 0
    assert last["host_memory_bytes"] > 1e8 and last["flops_per_second"] > 0
    quarters = [last[f"loss_quarter_{number}"] for number in range(1, 5)]
    assert any(quarter is not None for quarter in quarters)


@pytest.mark.slow
def test_cached_latents_train_to_the_same_losses(train: Train, tmp_path: Path) -> None:
    # The VAE encodes one clip at a time for the cache, so float32 sums have another order, and
    # Adam turns gradients of round-off size into whole steps: these are made very small.
    given: list[Any] = ["--learning_rate", "1e-9"]
    expected = train(*given, "--output_dir", tmp_path / "frames")
    cache = tmp_path / "cache"
    entries: dict[Path, int] = {}
    for name in ("first", "second"):
        run = train(*given, "--cache_dir", cache, "--output_dir", tmp_path / name)
        assert run.status == 0, run.stderr
        losses = [loss for _, loss, _ in run.losses]
        assert losses == pytest.approx([loss for _, loss, _ in expected.losses], rel=1e-5)
        written = {path: path.stat().st_mtime_ns for path in cache.rglob("*.safetensors")}
        assert len(written) == 6 and entries in ({}, written)
        entries = written


@pytest.mark.slow
def test_a_changed_file_is_encoded_anew(
    flags: dict[str, str], train: Train, clips: Path, tmp_path: Path
) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(clips, data)
    given: list[Any] = ["--data_dir", data, "--max_train_steps", 1, "--cache_dir", cache]
    before = train(*given, "--output_dir", tmp_path / "a")
    for frame in data.glob("*/0.png"):
        Image.fromarray(np.full((16, 16, 3), 255, np.uint8)).save(frame)
    after = train(*given, "--output_dir", tmp_path / "b")
    fresh = train("--data_dir", data, "--max_train_steps", 1, "--output_dir", tmp_path / "c")
    assert after.losses[0][1] != before.losses[0][1]
    assert after.losses[0][1] == pytest.approx(fresh.losses[0][1], rel=1e-5)


def test_records_train_to_the_same_losses_whether_or_not_reports_can_be_had(
    unbroken: Run, train: Train, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("wandb", "tensorboardX", "torch.utils.tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
    records = tmp_path / "records"
    assert build_data(["--source", str(clips), "--output", str(records), "--frames", "4"]) == 0
    run = train("--data_dir", records, "--report_to", "all")
    assert run.status == 0, run.stderr
    assert run.losses == unbroken.losses[:4]
    for name in ("wandb", "tensorboard"):
        assert f"--report_to {name} cannot be used" in run.stderr


def test_entries_depend_on_everything_and_damaged_ones_are_none(
    tmp_path: Path, tiny_checkpoint: Path
) -> None:
    cache = Cache(tmp_path / "cache")
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    cache.put({"mean": array}, "latents", "model", (16, 16))
    assert cache.get("latents", "other", (16, 16)) is None
    assert cache.get("latents", "model", (16, 24)) is None
    found = cache.get("latents", "model", (16, 16))
    assert found is not None
    np.testing.assert_array_equal(found["mean"], array)
    (entry,) = cache.folder.rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-4])
    assert cache.get("latents", "model", (16, 16)) is None


@pytest.mark.parametrize(("whole_epochs", "updates"), [(True, [2, 1, 2, 1]), (False, [2, 2, 2, 2])])
def test_an_epoch_ends_with_an_update_of_what_is_left_of_it(
    whole_epochs: bool, updates: list[int]
) -> None:
    """Three batches an epoch, two an update, as diffusers' scripts count them."""
    batches = (SimpleNamespace(number=number, size=(8, 8)) for number in range(20))
    loop: Any = object.__new__(Loop)
    loop.config = LoopConfig(4, whole_epochs=whole_epochs)
    loop.trainer = SimpleNamespace(config=StepConfig(accumulation_steps=2))
    loader = SimpleNamespace(batches_per_epoch=3, next_size=(8, 8))
    loop.feed = SimpleNamespace(next=lambda: (next(batches), {}), loader=loader)
    loop.frozen, loop._sizes, lasts = {}, {(8, 8)}, []
    loop._program = lambda state, batch, arrays, last: (
        lambda *_: (lasts.append(last), (state, {}))[1],
        0.0,
    )
    done = [loop._update(None, step)[1] for step in range(1, 5)]
    assert [len(each.batches) for each in done] == updates
    assert lasts == [n == count - 1 for count in updates for n in range(count)]


@pytest.mark.parametrize(
    ("epochs", "clips", "accumulation", "updates"), [(1, 5, 3, 2), (2, 3, 2, 4), (3, 4, 2, 6)]
)
def test_updates_are_counted_as_diffusers_counts_them(
    epochs: int, clips: int, accumulation: int, updates: int
) -> None:
    settings = TrainSettings(
        num_train_epochs=epochs, gradient_accumulation_steps=accumulation, train_batch_size=1
    )
    loader: Any = SimpleNamespace(batches_per_epoch=clips)
    assert step_count(settings, loader) == updates


@pytest.mark.slow
def test_a_run_of_epochs_sees_every_clip_as_often(train: Train) -> None:
    given = ("--num_train_epochs", 2, "--max_train_steps", NO_LIMIT)
    run = train(*given, "--train_batch_size", 1, "--gradient_accumulation_steps", 2)
    assert run.status == 0, run.stderr
    assert [metrics["epoch"] for metrics in run.metrics] == [0, 0, 1, 1]
    saved = find(run.output)[0]
    assert (saved.step, read_metadata(saved)["data"]["next_batch"]) == (4, 6)


def test_clips_that_fill_their_batch_alone_are_named(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = open_data(str(clips), 4).source
    for batch_size, told in ((3, []), (12, ["16 x 16 holds 3 of 12", "about 4 times"])):
        warn_of_small_buckets(Loader(source, LoaderConfig(batch_size, resolution=16)))
        assert all(text in caplog.text for text in told) and bool(caplog.text) == bool(told)


@pytest.mark.slow
def test_a_compiled_step_is_loaded_by_the_next_run_that_asks_for_the_same(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["--compilation_cache", tmp_path / "cache", "--max_train_steps", 2]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    first = train(*given, "--output_dir", tmp_path / "first")
    assert first.status == 0, first.stderr

    def trace(*_: Any, **__: Any) -> Any:
        raise AssertionError("a step was traced")

    monkeypatch.setattr("hotshot_jax.training.running.compiled_steps.trace_step", trace)
    again = train(*given, "--output_dir", tmp_path / "again", "--test_prompts", "")
    assert again.losses == first.losses
    numbers = [run.metrics[-1] for run in (first, again)]
    flops = [each["flops_per_second"] * each["step_seconds"] for each in numbers]
    assert flops[0] == pytest.approx(flops[1]) and flops[0] > 0
    with pytest.raises(AssertionError, match="traced"):
        train(*given, "--output_dir", tmp_path / "other", "--learning_rate", "2e-3")


@pytest.mark.slow
def test_steps_of_all_sizes_are_compiled_before_the_first(train: Train, tmp_path: Path) -> None:
    write_data(tmp_path / "data", [(16, 16), (16, 16), (32, 8), (32, 8)], frames=4)
    run = train(
        "--data_dir", tmp_path / "data", "--max_train_steps", 6,
        "--gradient_accumulation_steps", 2, "--compilation_cache", "none",
    )  # fmt: skip
    assert run.status == 0, run.stderr
    lines = [line for line in run.stderr.splitlines() if "training step" in line]
    assert len(lines) == 1 and "16 x 16" in lines[0] and "24 x 8" in lines[0], run.stderr
    assert run.stderr.index("training step") < run.stderr.index("step 1 of 6")
    assert len(run.losses) == 6


def test_a_loss_that_is_no_number_stops_with_step_samples_and_checkpoint(train: Train) -> None:
    run = train("--learning_rate", "1e30", "--max_train_steps", "30")
    assert run.status == 1 and "Traceback" not in run.stderr
    (message,) = [line for line in run.stderr.splitlines() if "train.py: error" in line]
    step = len(run.losses) + 1
    assert f"at step {step}, on the samples sample_" in message
    assert f"checkpoints/{step - 1}." in run.stderr
    assert all(np.isfinite(loss) for _, loss, _ in run.losses)
    assert (run.output / "checkpoints" / str(step - 1)).is_dir()


@pytest.mark.slow
def test_validation_writes_clips_and_the_held_out_loss(
    train: Train, clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given: list[Any] = ["--validation_data", clips, "--validation_steps", 1]
    given += ["--validate_every_steps", 2, "--max_train_steps", 2, "--gradient_checkpointing"]
    run = train(*given, "--test_prompts", "a red ball | \ud800", "--save", "best")
    assert run.status == 0, run.stderr
    assert (run.output / "validation" / "sheet.png").is_file()
    assert "best is step 2, with a held-out loss of" in run.stderr
    for file in ("unet/diffusion_pytorch_model.safetensors", "model_index.json"):
        assert filecmp.cmp(run.output / "best" / file, run.output / "export" / file, shallow=False)
    (clip,) = (run.output / "validation").rglob("*.gif")
    assert clip.parent.name == "step-0000002" and clip.name == "00-a-red-ball.gif"
    with Image.open(clip) as image:
        assert image.size == (16, 16) and image.n_frames == 4
    assert "validation clip of" in run.stderr and "training goes on" in run.stderr
    (held_out,) = [m["loss_held_out"] for m in run.metrics if "loss_held_out" in m]
    assert 0 < held_out < 100


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--learning_rate", "0"), "--learning_rate is 0.0; expected a positive number"),
        (("--learning_rate", "-1"), "--learning_rate is -1.0; expected a positive number"),
        (("--learning_rate", "nan"), "--learning_rate is nan; expected a positive number"),
        (("--max_train_steps", "0"), "--max_train_steps is 0; expected at least 1"),
        (("--gradient_accumulation_steps", "0"), "--gradient_accumulation_steps is 0"),
        (("--train_batch_size", "0"), "--train_batch_size is 0; expected at least 1"),
        (("--snr_gamma", "-1"), "--snr_gamma is -1.0; expected a positive number"),
        (("--ema_decay", "1"), "--ema_decay is 1.0; expected 0 or more and less than 1"),
        (("--text_dropout", "2"), "--text_dropout is 2.0; expected 0 to 1"),
        (("--seed", "-1"), "--seed is -1; expected 0 to 2"),
        (("--profile_steps", "5"), "--profile_steps is 5; expected first and last"),
        (("--resolution", "12"), "--resolution 12 must be a positive multiple of 8"),
        (("--lr_scheduler", "cosine"), "--lr_warmup_steps 500 is not shorter than the run of 4"),
        (("--mesh", "data=3"), "does not fit"),
        (("--data_dir", "/nowhere/at/all"), "/nowhere/at/all does not exist"),
        (("--price", "nan"), "--price is nan; expected 0 or more"),
        (("--save", "best"), "--save best needs --validation_data or --validation_split"),
        (("--validation_split", "1"), "--validation_split is 1.0; expected above 0, below 1"),
        (("--validation_split", "nan"), "--validation_split is nan; expected above 0"),
        (("--validation_split", "0.99"), "leaves nothing to train on"),
        (("--sample_prompts", "/nowhere.txt"), "both say what to show; give one"),
        (("--config", "/nowhere.yaml"), "--config /nowhere.yaml: there is no such file"),
        (("--trian", "unet"), "did you mean --train?"),
        (("--adam_beta1", "1"), "--adam_beta1 is 1.0"),
        (("--compile_effort", "O4"), "--compile_effort: invalid choice: 'O4'"),
        (("--train", "lcm", "--w_min", "-1"), "--w_min is -1.0; expected 0 or more"),
        (("--train", "lcm", "--w_max", "inf"), "--w_max is inf; expected 0 or more"),
        (("--train", "lcm", "--w_min", "nan"), "--w_min is nan; expected 0 or more"),
        (("--train", "lcm", "--w_min", "9", "--w_max", "4"), "--w_min 9 is more than --w_max 4"),
        (("--train", "lcm", "--num_ddim_timesteps", "1"), "is 1; expected 2 to 1000"),
        (("--train", "lcm", "--num_ddim_timesteps", "1001"), "is 1001; expected 2 to 1000"),
        (("--train", "lcm", "--loss", "huber", "--huber_c", "0"), "--huber_c is 0.0; expected a"),
        (("--train", "lcm", "--timestep_scaling_factor", "nan"), "--timestep_scaling_factor is na"),
        (("--train", "lcm", "--lcm_target", "ema"), "give --ema_decay too"),
        (("--train", "lcm", "--lcm_target", "teacher"), "--lcm_target: invalid choice: 'teacher'"),
        (("--train", "lcm", "--prediction_type", "epsilon"), "--train lcm leaves the UNet as it"),
        (("--train", "lcm", "--lora_rank", "0"), "--lora_rank is 0; expected at least 1"),
        (("--train", "lora", "--lora_layers", "some"), "--lora_layers: invalid choice: 'some'"),
        (("--optimizer", "adam"), "--optimizer: invalid choice: 'adam'"),
        (("--optimizer", "lion", "--use_8bit_adam"), "--optimizer is lion: give one of them"),
        (("--optimizer", "lion", "--adam_epsilon", "1"), "--adam_epsilon has no effect"),
        (("--optimizer", "adafactor", "--adam_beta1", "0"), "--adam_beta1 has no effect"),
        (("--optimizer", "schedule_free", "--adam_beta1", "0"), "--adam_beta1 is 0; schedule_free"),
        (("--optimizer", "schedule_free", "--ema_decay", "0.9"), "leave --ema_decay out"),
        (
            ("--optimizer", "schedule_free", "--lr_scheduler", "linear", "--lr_warmup_steps", "0"),
            "--lr_scheduler linear falls",
        ),
        (("--optimizer", "prodigy", "--disable_optimizer_restore"), "cannot be left behind"),
        (("--compile_effort", "O1"), "compile_effort O1 is for TPUs, and this run is on"),
    ],
)
def test_wrong_usage_is_refused_before_anything_is_written(
    train: Train, given: tuple[str, ...], message: str
) -> None:
    run = train(*given)
    assert run.status == 2, run.stderr
    assert message in run.stderr and "Traceback" not in run.stderr
    assert not run.output.exists()


def test_the_compile_effort_reaches_the_compiler_of_the_step(
    train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    efforts = []

    def compile_seen(traced: Any, platform: str, effort: str) -> Any:
        efforts.append(effort)
        raise HotshotError("seen")

    monkeypatch.setattr("hotshot_jax.training.running.compiled_steps.compile_step", compile_seen)
    monkeypatch.setattr("hotshot_jax.cli.train.train.current_platform", lambda: "tpu")
    run = train("--compile_effort", "O1", "--max_train_steps", 1)
    assert run.status == 1, run.stderr
    assert efforts == ["O1"]
    assert "compile_effort: O1" in (run.output / "config.yaml").read_text()


def test_data_dir_is_required(flags: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    from hotshot_jax.cli.train.command import main

    assert main([]) == 2
    assert "--data_dir is missing" in capfd.readouterr().err


def test_a_broken_data_set_is_told_whole_before_the_first_step(
    train: Train, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    write_data(data, [(16, 16)] * 2, frames=4)
    write_sample(data / "short", frames=2, size=(16, 16))
    (write_sample(data / "silent", frames=4, size=(16, 16)), (data / "silent/prompt.txt").unlink())
    write_sample(data / "torn", frames=4, size=(16, 16))
    (data / "torn" / "2.png").write_bytes((data / "torn" / "2.png").read_bytes()[:60])
    (data / "film.mpg").write_text("")
    run = train("--data_dir", data)
    assert run.status == 1 and not run.output.exists()
    for name in ("short: has 2 frames", "silent/prompt.txt: is missing", "torn/2.png"):
        assert name in run.stderr
    skipping = train("--data_dir", data, "--on_bad_sample", "skip", "--max_train_steps", "1")
    assert skipping.status == 0
    assert "2 samples in 1 buckets" in skipping.stderr and "Skipped: silent" in skipping.stderr
    assert "are): 1 (film.mpg)" in skipping.stderr


def test_a_model_that_is_not_there_is_told_and_nothing_else(
    flags: dict[str, str], tmp_path: Path
) -> None:
    given = ("--pretrained_model_name_or_path", tmp_path / "nowhere", "--output_dir", tmp_path)
    # In a process of its own: what still runs in threads speaks up when it ends.
    process = start(flags, *given)
    told = process.communicate()[1]
    assert process.returncode == 2, told
    assert told.splitlines()[-1].startswith(f"train.py: error: '{tmp_path / 'nowhere'}' does not")
    assert "Traceback" not in told


def test_an_output_that_cannot_be_written_is_told(train: Train, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    run = train("--output_dir", tmp_path / "file")
    assert run.status == 1 and "checkpoints cannot be written" in run.stderr
    assert "Traceback" not in run.stderr


def test_models_have_digests_of_their_own() -> None:
    import jax
    from flax import nnx

    from hotshot_jax.convert.builders import model_builder
    from tests.tiny_checkpoint import tiny_configs

    build = model_builder("vae", tiny_configs()["vae"], where="vae")
    make = jax.jit(lambda seed: build(nnx.Rngs(jax.random.key(seed))))
    first, again, other = (model_digest(make(seed)) for seed in (0, 0, 1))
    assert first == again != other
