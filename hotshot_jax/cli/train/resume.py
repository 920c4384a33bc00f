"""Where a run of `train.py` goes on: which checkpoint, and what has to be as it was then."""

import dataclasses
import json
import logging
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.data.loader import Loader, OtherDataError
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.parallel.hosts import failing_together, first_of_all_hosts
from hotshot_jax.schedulers.base import Scheduler
from hotshot_jax.training.optimizer import without_moments
from hotshot_jax.training.running.checkpoint import (
    Checkpoints,
    DamagedCheckpointError,
    Saved,
    find,
    forget_failure,
    read_metadata,
    restore,
)
from hotshot_jax.training.running.step import TrainState
from hotshot_jax.training.trainees.models import TrainingModels

logger = logging.getLogger(__name__)

_NONE = "none"
# Settings that say what the arrays of a checkpoint are. What the model predicts and what it was
# made of is compared by what it is, and not by the flags that chose it.
_MUST_MATCH = ("train", "ema_decay", "mixed_precision")
_MUST_MATCH_OF = {
    "lora": ("lora_rank", "lora_targets", "lora_layers", "train_text_encoder"),
    "lcm": ("lora_rank", "lora_targets", "lora_layers"),
    "controlnet": ("control_type", "canny_low_threshold", "canny_high_threshold"),
}
# What checkpoints mean that were written before there was a setting, where its default is another.
_BEFORE = {"snr_weights": "reference"}
# And of those that must match, where checkpoints may be older than the setting.
_FIRST = {"lora_layers": "attention", "train_text_encoder": False}


@dataclasses.dataclass(frozen=True)
class Identity:
    """What a run trains, as far as settings do not say it.

    Attributes:
        prediction_type: what the model learns to find.
        started_predicting: what it found before.
        noise_schedule: hash of the noise levels by timestep, zero terminal SNR included.
        unet: hash of the norms and biases that training started from.
        parts: hashes of all that training started from, by name.
    """

    prediction_type: str
    started_predicting: str
    noise_schedule: int
    unet: int
    parts: Mapping[str, int]

    @classmethod
    def of(
        cls, models: TrainingModels, started_predicting: str, scheduler: Scheduler
    ) -> "Identity":
        """That of a run with these models and this noise schedule."""
        levels = np.asarray(scheduler.noise_schedule.alphas_cumprod, np.float32)
        return cls(
            scheduler.prediction_type,
            started_predicting,
            zlib.crc32(levels.tobytes()),
            models.fingerprint,
            models.fingerprints,
        )

    def metadata(self, settings: TrainSettings) -> dict[str, Any]:
        """What is stored with each checkpoint of the run."""
        return {
            "settings": dataclasses.asdict(settings),
            "model": self.unet,
            "parts": dict(self.parts),
            "prediction_type": self.prediction_type,
            "noise_schedule": self.noise_schedule,
        }

    def changes(self, metadata: Mapping[str, Any]) -> list[str]:
        """What is not as a checkpoint has it, in words; older ones do not tell everything."""
        listed = []
        asked = metadata["settings"].get("prediction_type")
        before = metadata.get("prediction_type", asked or self.started_predicting)
        if before != self.prediction_type:
            listed.append(f"prediction_type was {before} and is {self.prediction_type}")
        if metadata.get("noise_schedule", self.noise_schedule) != self.noise_schedule:
            listed.append("the noise schedule (scheduler_config.json) is another one")
        parts = metadata.get("parts", {})
        if metadata.get("model") != self.unet:
            listed.append("the model that it started from is another one")
        elif others := [name for name, is_ in self.parts.items() if parts.get(name, is_) != is_]:
            listed.append(f"the {' and the '.join(others)} that it started from is another one")
        return listed


def checkpoints_to_resume(settings: TrainSettings, checkpoints: Checkpoints) -> Sequence[Saved]:
    """The checkpoints to go on from, the first one that is whole; none for a new start.

    All hosts have to call it together, and are given the steps that the first one finds.

    Args:
        settings: of the run.
        checkpoints: in its `--output_dir`.

    Raises:
        UsageError: what is to be resumed is not there, or the output holds another run.
        HotshotError: it has no complete checkpoint.
    """
    with failing_together():
        folder, found = _found(settings, checkpoints)
    steps = first_of_all_hosts(json.dumps([saved.step for saved in found]))
    # Hosts may have other names for one folder.
    return [Saved(folder, step) for step in json.loads(steps)]


def resume(
    settings: TrainSettings,
    candidates: Sequence[Saved],
    state: TrainState,
    identity: Identity,
    loader: Loader,
) -> tuple[TrainState, list[str]]:
    """The state of the first checkpoint that is whole; the loader goes to its place in the data.

    Those that are damaged are told.

    Args:
        settings: of the run.
        candidates: at least one.
        state: as the run would start without them.
        identity: of the run.
        loader: of the training data.

    Returns:
        The state, and what to say about it, line by line.

    Raises:
        HotshotError: none of them can be restored, or the run is another one.
    """
    for saved in candidates:
        try:
            with failing_together(DamagedCheckpointError):
                metadata = read_metadata(saved)
                _check(settings, saved, metadata, identity)
            # A block of its own: hosts wait for each other within it, and one that has failed
            # before would wait elsewhere.
            with failing_together(DamagedCheckpointError):
                restored = restore(saved, state)
        except DamagedCheckpointError as error:
            logger.warning("%s", error)
        else:
            break
        forget_failure()
    else:
        tried = ", ".join(str(saved.path) for saved in candidates)
        raise HotshotError(
            f"No checkpoint can be restored (tried {tried}).\nGo on from another one by --resume "
            "PATH, or start anew in another --output_dir."
        )
    said = [f"going on from step {saved.step} of {saved.path}"]
    try:
        loader.set_state(metadata["data"])
    except OtherDataError as error:
        if settings.resume_data != "restart":
            raise
        said.append(f"the data from their beginning: {error.changes}")
    changed = changed_settings(metadata["settings"], settings)
    if changed:
        said.append(f"other settings than there: {', '.join(changed)}")
    if settings.disable_optimizer_restore:
        optimizer = without_moments(restored.optimizer, state.optimizer)
        restored = dataclasses.replace(restored, optimizer=optimizer)
    return restored, said


def changed_settings(before: Mapping[str, Any], settings: TrainSettings) -> list[str]:
    """Each setting that is not as it was, as "name old -> new".

    Args:
        before: as a checkpoint has them; one that is missing was not there yet, and its default
            is taken for it.
        settings: of this run.
    """
    # As they come back from the checkpoint.
    now = json.loads(json.dumps(dataclasses.asdict(settings)))
    was = {**dataclasses.asdict(TrainSettings()), **_BEFORE, **before}
    return [
        f"{name} {was[name]} -> {now[name]}"
        for name, flag in flags_of(TrainSettings).items()
        if was[name] != now[name] and not flag.about_this_run and name != "resume"
    ]


def _found(settings: TrainSettings, checkpoints: Checkpoints) -> tuple[Path, list[Saved]]:
    own = checkpoints.complete
    if settings.resume == "auto":
        return checkpoints.folder, own
    named = [] if settings.resume == _NONE else find(Path(settings.resume))
    if own and not (named and named[0].folder.samefile(checkpoints.folder)):
        raise UsageError(
            f"--output_dir {settings.output_dir} holds checkpoints up to step {own[0].step}: "
            f"--resume auto goes on from there, and --resume {own[-1].path} from that one; to do "
            "otherwise, name another --output_dir."
        )
    return named[0].folder if named else checkpoints.folder, named


def _check(
    settings: TrainSettings, saved: Saved, metadata: Mapping[str, Any], identity: Identity
) -> None:
    there = metadata["settings"]
    changed = [
        f"{name} was {there.get(name, _FIRST.get(name))} and is {getattr(settings, name)}"
        for name in (*_MUST_MATCH, *_MUST_MATCH_OF.get(settings.train, ()))
        if there.get(name, _FIRST.get(name)) != getattr(settings, name)
    ]
    # Either of two flags may say that moments have one byte.
    optimizer = "adamw_8bit" if there.get("use_8bit_adam") else there.get("optimizer", "adamw")
    if optimizer != settings.optimizer_name:
        changed.append(f"optimizer was {optimizer} and is {settings.optimizer_name}")
    changed += identity.changes(metadata)
    if changed:
        raise HotshotError(
            f"{saved.path} cannot be resumed: {'; '.join(changed)}.\n"
            "Use the settings of that run, or start anew in another --output_dir."
        )
