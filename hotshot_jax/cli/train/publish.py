"""Putting what a run trained on the Hub, with a card that is made of what the run left behind."""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.model_card import ModelCard
from hotshot_jax.cli.run import say
from hotshot_jax.cli.train.output import CARD_FOLDER, EXPORT, LOSSES, METRICS
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.convert.hub import repository_of
from hotshot_jax.convert.hub_push import CARD, check_push, licence_of, push
from hotshot_jax.errors import HotshotError
from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.media.metadata import read_metadata
from hotshot_jax.training.running.step_sheet import SHEET
from hotshot_jax.training.running.summary import Summary, describe_seconds, is_number, read_metrics
from hotshot_jax.writing.places import LIST, check_made_here, list_files
from hotshot_jax.writing.staging import staged_folder

_MOST_CLIPS = 6
_KINDS = {"lora": "lora", "lcm": "lora", "controlnet": "controlnet"}
_WHAT = {
    "temporal": "the temporal layers trained",
    "spatial": "all layers but the temporal ones trained",
    "unet": "the whole UNet trained",
    "lora": "as a LoRA",
    "lcm": "as a LoRA with which few steps are enough",
    "controlnet": "as a ControlNet",
}
# Of no use to others, or places on the machine of who trained.
_UNSAID = ("data_dir", "cache_dir", "push_to_hub", "hub_private", "project_name", "run_name")


def check_publishing(settings: TrainSettings) -> None:
    """Checks, before a model is loaded, that it can be put where it is to go; see `check_push`."""
    if settings.push_to_hub is not None:
        check_push(settings.push_to_hub, private=settings.hub_private)


def publish(settings: TrainSettings, videos: Path, data: Mapping[str, Any]) -> None:
    """Writes the card of a finished run and puts it and the export on the Hub.

    Args:
        settings: of the run.
        videos: the folder of validation clips.
        data: what the model was trained on, for the card.

    Raises:
        HotshotError: it is not there; says how to put it there without training again.
    """
    repository = settings.push_to_hub
    if repository is None:
        return
    output = Path(settings.output_dir)
    card = _write_card(settings, repository, output, videos, data)
    say(f"pushing {output / EXPORT} to {repository}")
    try:
        say(f"pushed to {push(output / EXPORT, repository, card)}")
    except HotshotError as error:
        private = " --private" * settings.hub_private
        commands = " && ".join(
            f"hf upload {repository} {shlex.quote(str(output / folder))} .{options}{private}"
            for folder, options in ((EXPORT, ""), (CARD_FOLDER, f" --exclude {LIST}"))
        )
        raise HotshotError(
            f"{error}\nWhat was trained is in {output / EXPORT}. To push it later: {commands}"
        ) from None


def _write_card(
    settings: TrainSettings, repository: str, output: Path, videos: Path, data: Mapping[str, Any]
) -> dict[str, bytes]:
    files = {}
    clips = []
    for clip in _last_clips(videos):
        files[f"clips/{clip.name}"] = read_bytes(clip, MOST_FILE_BYTES)
        clips.append((read_metadata(clip).get("prompt", clip.stem), f"clips/{clip.name}"))
    pictures = {}
    for title, picture in (("Loss", output / LOSSES), ("Clips by step", videos / SHEET)):
        if picture.is_file():
            files[picture.name] = read_bytes(picture, MOST_FILE_BYTES)
            pictures[title] = picture.name
    base = settings.pretrained_model_name_or_path
    hub_id = repository_of(base)
    known = None if hub_id is None else hub_id.repository
    text = ModelCard(
        repository,
        _KINDS.get(settings.train, "model"),
        f"{known or 'A Hotshot-XL model'}, {_WHAT[settings.train]} with hotshot-jax.",
        base_model=known,
        licence=licence_of(base),
        instance_prompt=settings.trigger_words or None,
        clips=clips,
        pictures=pictures,
        facts={
            "Data": data,
            "Training": _metrics(output),
            "Settings": _public_settings(settings),
        },
    ).text()
    files[CARD] = text.encode()
    with staged_folder(output / CARD_FOLDER, may_replace=check_made_here) as folder:
        for name, content in files.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(content)
        list_files(folder)
    return files


def _last_clips(videos: Path) -> list[Path]:
    steps = sorted(each for each in videos.glob("step-*") if any(each.glob("*.gif")))
    clips = sorted(steps[-1].glob("*.gif")) if steps else []
    return [each for each in clips if not each.stem.endswith("-control")][:_MOST_CLIPS]


def _metrics(output: Path) -> dict[str, Any]:
    lines = read_metrics(output / METRICS)
    summary = Summary.of(lines)
    if summary is None:
        return {}
    said = {
        "steps": summary.steps,
        "samples": summary.samples,
        "time": describe_seconds(summary.training_seconds),
        "devices": summary.devices,
        "loss, smoothed, at the end": f"{summary.loss:.4g}",
    }
    held_out = [line["loss_held_out"] for line in lines if is_number(line.get("loss_held_out"))]
    if held_out:
        said["loss on held-out data, at the end"] = f"{held_out[-1]:.4g}"
    return said


def _public_settings(settings: TrainSettings) -> dict[str, Any]:
    """Those that differ from the defaults, without what names places on a machine."""
    flags = flags_of(TrainSettings)
    return {
        field.name: getattr(settings, field.name)
        for field in dataclasses.fields(settings)
        if getattr(settings, field.name) != field.default
        and not flags[field.name].local
        and not flags[field.name].about_this_run
        and field.name not in (*_UNSAID, "pretrained_model_name_or_path")
    }
