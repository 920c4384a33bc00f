"""Buckets and other addresses in place of paths: refused at once, and never made a folder "gs:"."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.toy.from_scratch import command as from_scratch
from hotshot_jax.cli.convert import command as convert
from hotshot_jax.cli.data.command import build, inspect
from hotshot_jax.cli.infer import command as infer
from hotshot_jax.cli.train import command as train
from hotshot_jax.cli.train.settings import parse_train_settings
from hotshot_jax.errors import UsageError

Main = Callable[[Sequence[str]], int]
BUCKET = "gs://bucket/folder"
DATA = ("--data_dir", "clips")


@pytest.mark.parametrize(
    ("main", "given", "named"),
    [
        (train.main, ("--data_dir", BUCKET), "--data_dir"),
        *(
            (train.main, (*DATA, f"--{name}", BUCKET), f"--{name}")
            for name in (
                "output_dir", "cache_dir", "resume", "validation_data", "unet_resume_path",
                "logging_dir", "compilation_cache",
            )
        ),
        (train.main, (*DATA, "--output_dir", "S3://bucket/folder"), "S3://"),
        (train.main, (*DATA, "--resume", "file:///runs/1"), "file://"),
        *(
            (infer.main, (f"--{name}", BUCKET), f"--{name}")
            for name in ("output", "save_control", "prompts_file", "compilation_cache")
        ),
        (convert.main, ("source", BUCKET), "DEST"),
        (convert.main, (BUCKET, "dest"), "SOURCE"),
        (build, ("--source", "clips", "--output", BUCKET), "--output"),
        (build, ("--source", BUCKET, "--output", "data"), "--source"),
        (inspect, (BUCKET,), "DIR"),
        (from_scratch.main, ("create", "--output", BUCKET), "--output"),
    ],
)  # fmt: skip
def test_addresses_are_refused_at_once(
    main: Main,
    given: tuple[str, ...],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(given) == 2
    told = capfd.readouterr().err
    assert "is neither read nor written here" in told and named in told
    assert "Traceback" not in told and list(tmp_path.iterdir()) == []


def test_in_a_configuration_file_too(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(f"output_dir: {BUCKET}\n")
    with pytest.raises(UsageError, match="output_dir gs://bucket/folder: gs:// is neither"):
        parse_train_settings(["--config", str(file)], "train.py")


def test_data_sets_that_are_no_paths_are_none_of_these() -> None:
    name = "shapes:train?length=4&seed=1"
    assert parse_train_settings(["--data_dir", name], "train.py").data_dir == name
