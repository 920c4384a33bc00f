"""What a run of `train.py` refuses to replace, before anything is loaded."""

import contextlib
import json
from pathlib import Path

import pytest

from hotshot_jax.cli.train.output import check_output_dir, save_config
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.training.running.metrics import MetricsFile
from hotshot_jax.writing.places import list_files


def settings(output: Path, **values: str) -> TrainSettings:
    return TrainSettings(**({"data_dir": "clips", "output_dir": str(output)} | values))


def write_export(output: Path) -> None:
    (output / "export" / "unet").mkdir(parents=True)
    (output / "export" / "unet" / "config.json").write_text("{}")
    list_files(output / "export")


def test_what_an_earlier_run_left_is_replaced(tmp_path: Path) -> None:
    check_output_dir(settings(tmp_path / "new"))
    write_export(tmp_path)
    save_config(tmp_path, TrainSettings(seed=1))
    with contextlib.closing(MetricsFile(tmp_path / "metrics.jsonl", 0)) as metrics:
        metrics.numbers(1, {"loss": 1.0})
    check_output_dir(settings(tmp_path))
    save_config(tmp_path, TrainSettings(seed=2))
    assert "\nseed: 2\n" in (tmp_path / "config.yaml").read_text()


FOREIGN = {
    "export/thesis.txt": "was not made by hotshot-jax",
    "export": "is a file",
    "config.yaml": "no run of train.py wrote",
    "metrics.jsonl": "no run of train.py wrote",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_others_wrote_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(json.dumps({"mine": 1}))
    with pytest.raises(UsageError, match=FOREIGN[name]):
        check_output_dir(settings(tmp_path))
    if name == "metrics.jsonl":
        with pytest.raises(HotshotError, match="holds no metrics"):
            MetricsFile(tmp_path / name, 0)
    assert json.loads((tmp_path / name).read_text()) == {"mine": 1}


@pytest.mark.parametrize("change", ["added", "edited"])
def test_an_export_that_someone_worked_on_is_not(tmp_path: Path, change: str) -> None:
    write_export(tmp_path)
    file = tmp_path / "export" / "unet" / ("config.json" if change == "edited" else "mine.txt")
    file.write_text("something else")
    with pytest.raises(UsageError, match=f"unet/{file.name}"):
        check_output_dir(settings(tmp_path))


@pytest.mark.parametrize(
    "flag", ["pretrained_model_name_or_path", "unet_resume_path", "data_dir", "validation_data"]
)
@pytest.mark.parametrize("below", ["", "unet"])
def test_what_is_read_is_not(tmp_path: Path, flag: str, below: str) -> None:
    write_export(tmp_path)
    (tmp_path / "link").symlink_to("export")
    with pytest.raises(UsageError, match=f"export is what --{flag} reads"):
        check_output_dir(settings(tmp_path, **{flag: str(tmp_path / "link" / below)}))


def test_a_dead_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("unmounted")
    with pytest.raises(UsageError, match="symbolic link to unmounted"):
        check_output_dir(settings(tmp_path / "link"))
