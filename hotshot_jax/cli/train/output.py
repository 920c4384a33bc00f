"""What a run of `train.py` leaves in its folder, and what it must not replace there."""

import dataclasses
import math
from pathlib import Path

import yaml
from PIL import Image

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.data.mixing.data_place import parse_place
from hotshot_jax.errors import UsageError
from hotshot_jax.files.plain_file import open_plain
from hotshot_jax.parallel.hosts import first_of_all_hosts
from hotshot_jax.training.running.metrics import is_metrics
from hotshot_jax.training.running.summary import Summary, draw_losses, is_number, read_metrics
from hotshot_jax.writing.places import check_made_here, check_no_dead_link, is_inside
from hotshot_jax.writing.staging import replace_anything, staged_file

EXPORT, BEST, CARD_FOLDER = "export", "best", "card"
CONFIG, METRICS = "config.yaml", "metrics.jsonl"
LOSSES, SUMMARY = "loss.png", "summary.json"
VALIDATION = "validation"
_HEADER = "# Settings of a run of hotshot-jax; --config takes them.\n"
_READ = (
    "validation_data",
    "pretrained_model_name_or_path",
    "unet_resume_path",
)


def check_output_dir(settings: TrainSettings) -> None:
    """Checks, before anything is loaded, that a run replaces nothing but what an earlier one made.

    Raises:
        UsageError: names what is in the way.
    """
    output = Path(settings.output_dir)
    check_no_dead_link(output)
    for folder in (EXPORT, BEST, *((CARD_FOLDER,) if settings.push_to_hub else ())):
        export = output / folder
        read = [("data_dir", each) for each in settings.data_dirs]
        read += [(name, getattr(settings, name)) for name in _READ]
        for name, text in read:
            source = None if text is None else parse_place(text).place
            if source is not None and export.exists() and is_inside(source, export):
                raise UsageError(
                    f"--output_dir {output}: its {folder} is what --{name} reads, and would be "
                    "replaced. Name another folder."
                )
        if export.exists() and not (export.is_dir() and not any(export.iterdir())):
            check_made_here(export)
    for name, is_ours in ((CONFIG, _is_config), (METRICS, is_metrics)):
        file = output / name
        if file.exists() and not is_ours(file):
            raise UsageError(
                f"--output_dir {output} holds a {name} that no run of train.py wrote, and that "
                "this one would replace. Name another folder."
            )
    for name in (LOSSES, SUMMARY):
        if (output / name).exists() and not (output / METRICS).exists():
            raise UsageError(
                f"--output_dir {output} holds a {name} and no {METRICS} that it would be made of; "
                "this run would replace it. Name another folder."
            )


def save_config(output: Path, settings: TrainSettings) -> None:
    """Writes the settings of a run, but for those that are about one start of it, for `--config`.

    Raises:
        HotshotError: the folder cannot be written to.
    """
    flags = flags_of(TrainSettings)
    values = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if not flags[name].about_this_run
    }
    text = _HEADER + yaml.safe_dump(values, sort_keys=False)
    with staged_file(output / CONFIG, may_replace=replace_anything) as staged:
        staged.write_text(text, encoding="utf-8")


def save_summary(output: Path, price: float | None) -> Summary | None:
    """Writes what the metrics of a run come to, and a picture of its losses.

    Args:
        output: the run's folder.
        price: of a device for an hour.

    Returns:
        The sums; None, and nothing is written, if no update was made.

    Raises:
        HotshotError: the folder cannot be written to.
        OSError: the metrics cannot be read.
    """
    metrics = read_metrics(output / METRICS)
    summary, picture = Summary.of(metrics, price), draw_losses(metrics)
    if summary is None or picture is None:
        return None
    with staged_file(output / SUMMARY, may_replace=replace_anything) as staged:
        staged.write_text(summary.to_json(), encoding="utf-8")
    with staged_file(output / LOSSES, may_replace=replace_anything) as staged:
        Image.fromarray(picture).save(staged, "PNG")
    return summary


def least_held_out_loss(output: Path, last_step: int) -> float:
    """The lowest loss on held-out data that a run has measured; infinite without any.

    All hosts have to call it together, and are given what the first one reads.

    Args:
        output: the run's folder.
        last_step: what was measured later does not count.
    """
    return float(first_of_all_hosts(repr(_least_held_out_loss(output, last_step))))


def _least_held_out_loss(output: Path, last_step: int) -> float:
    try:
        metrics = read_metrics(output / METRICS)
    except OSError:
        return math.inf
    losses = [
        line["loss_held_out"]
        for line in metrics
        if line["step"] <= last_step and is_number(line.get("loss_held_out"))
    ]
    return min(losses, default=math.inf)


def _is_config(file: Path) -> bool:
    try:
        with open_plain(file) as lines:
            return lines.read(len(_HEADER)) == _HEADER.encode()
    except OSError:
        return False
