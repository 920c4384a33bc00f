"""What can be checked before the model is loaded is checked before it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.clips import write_data
from tests.training.conftest import Run

Train = Callable[..., Run]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(*given: Any, **options: Any) -> None:
        raise AssertionError("the model was loaded")

    monkeypatch.setattr("hotshot_jax.cli.train.train.load_models", load)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path / "data", [(16, 16)] * 2, frames=4)
    return tmp_path / "data"


@pytest.mark.usefixtures("no_model")
def test_held_out_data_and_the_cache(train: Train, data: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    write_data(tmp_path / "short", [(16, 16)] * 2, frames=3)
    for flag, value, status, message in (
        ("--validation_data", tmp_path / "none", 2, f"{tmp_path / 'none'} does not exist"),
        ("--validation_data", tmp_path / "short", 1, "has 3 frames, but 4 are needed"),
        ("--cache_dir", tmp_path / "file", 1, f"--cache_dir {tmp_path / 'file'} cannot be written"),
        ("--cache_dir", tmp_path / "file/in", 1, "cannot be written"),
    ):
        run = train("--data_dir", data, flag, value)
        assert run.status == status and message in run.stderr, run.stderr
        assert not run.output.exists()


@pytest.mark.usefixtures("no_model")
def test_nothing_is_written_among_the_samples(train: Train, data: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(data)
    for given in (
        ("--output_dir", data / "run"),
        ("--output_dir", data),
        ("--output_dir", tmp_path / "link" / "run"),
        ("--output_dir", data / ".." / "data" / "run"),
        ("--cache_dir", data / "cache"),
    ):
        run = train("--data_dir", data, *given)
        assert run.status == 2 and f"lies in --data_dir {data}" in run.stderr, run.stderr
    run = train("--validation_data", data, "--output_dir", data / "run")
    assert run.status == 2 and f"lies in --validation_data {data}" in run.stderr
    assert sorted(path.name for path in data.iterdir()) == ["sample_0", "sample_1"]


@pytest.mark.usefixtures("no_model")
def test_text_encoders_train_where_they_can(train: Train, tmp_path: Path) -> None:
    flag = "--train_text_encoder"
    config = tmp_path / "config.yaml"
    config.write_text("train_text_encoder: true\n")
    for given, message in (
        (("--train", "lora", "--cache_dir", tmp_path / "cache"), "--cache_dir cannot be used with"),
        (("--train", "lcm"), "cannot be used with --train lcm: teacher and student read one text"),
        (("--train", "temporal"), "--train temporal trains no factors. Give --train lora"),
        (("--train", "controlnet"), "--train controlnet trains no factors"),
    ):
        for way in ((flag,), ("--config", config)):
            run = train(*given, *way)
            assert run.status == 2 and flag in run.stderr and message in run.stderr, run.stderr
            assert not run.output.exists() and not (tmp_path / "cache").exists()
