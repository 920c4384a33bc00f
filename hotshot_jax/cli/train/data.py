"""What a run of `train.py` reads: its batches, those held out, and the clips that it shows."""

import dataclasses
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from hotshot_jax.cli.train.output import VALIDATION
from hotshot_jax.cli.train.samples import read_samples
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.data.batch import ClipRequest, decode_frames
from hotshot_jax.data.clip_source import ClipTable, table_fingerprint
from hotshot_jax.data.loader import Loader
from hotshot_jax.data.mixing.data_place import parse_place
from hotshot_jax.data.mixing.held_out import hold_out
from hotshot_jax.data.mixing.joined import JoinedData, open_joined
from hotshot_jax.data.mixing.mixed_plan import Part
from hotshot_jax.data.open_data import OpenedData
from hotshot_jax.errors import UsageError
from hotshot_jax.media.aspect_ratios import SIZES_BY_RESOLUTION
from hotshot_jax.parallel.hosts import compare
from hotshot_jax.runtime.progress import Progress
from hotshot_jax.training.feeding.cache import Cache
from hotshot_jax.training.feeding.feed import (
    CachedLatents,
    ControlFrames,
    Encoders,
    Feed,
    MakeControl,
)
from hotshot_jax.training.running.step import Trainer
from hotshot_jax.training.running.validation import (
    DEFAULT_PROMPTS,
    ORIGINAL_SIZE,
    ClipConfig,
    ClipValidation,
    HeldOutLoss,
    Sample,
)
from hotshot_jax.training.trainees.models import TrainingModels
from hotshot_jax.writing.places import is_inside

logger = logging.getLogger(__name__)

FEW_STEPS: dict[str, Any] = {"lcm": {"scheduler": "LCMScheduler", "guidance_scale": 1.0}}
"""How clips of the result are made, by what trains."""


@dataclasses.dataclass(frozen=True)
class RunData:
    """The data sets of a run, opened and checked.

    Attributes:
        training: what is trained on.
        mix: in which shares the data sets that it joins are drawn from; None for one alone.
        held_out: what the held-out loss is measured on, if anything is.
    """

    training: OpenedData
    mix: Sequence[Part] | None
    held_out: OpenedData | None


def open_run_data(settings: TrainSettings) -> RunData:
    """Opens and checks everything that a run reads besides the model, and where it writes.

    What lies among the data and is not read is told.

    Raises:
        UsageError: there is no such data, or the run would write into its own data.
        HotshotError: samples are bad, or the cache cannot be written.
    """
    for name in ("output_dir", "cache_dir"):
        _check_outside_of_data(settings, name)
    if settings.cache_dir is not None:
        Cache(Path(settings.cache_dir)).check_writable()
    joined = _open(settings.data_dirs, settings)
    held_out = None
    if settings.validation_data is not None:
        held_out = _open([settings.validation_data], settings).opened
    elif settings.validation_split is not None:
        joined, held_out = hold_out(joined, settings.validation_split)
    return RunData(joined.opened, joined.mix, held_out)


def check_same_data(settings: TrainSettings, data: RunData) -> None:
    """Checks that all hosts see the same data; they have to call it together.

    Clips are compared by their sizes and order, as where a run goes on.

    Raises:
        UsageError: on every host, with which data differ.
    """
    seen, first = {}, 0
    table = data.training.source.table
    for text, part in zip(settings.data_dirs, data.mix or [Part(len(table))], strict=True):
        seen[f"`data_dir` {text}"] = _described(table[first : first + part.clips])
        first += part.clips
    if data.held_out is not None:
        name = f"`validation_data` {settings.validation_data}"
        if settings.validation_data is None:
            name = f"what `validation_split` {settings.validation_split} holds out"
        seen[name] = _described(data.held_out.source.table)
    compare(
        seen,
        "The processes of this run see different data",
        "Name data that all hosts see alike: one folder that they share, or whole copies.",
    )


def _described(table: ClipTable) -> str:
    return f"{len(table)} clips (checksum of their sizes {table_fingerprint(table):08x})"


def _open(data: Sequence[str], settings: TrainSettings) -> JoinedData:
    joined = open_joined(
        data,
        settings.video_length,
        settings.frame_stride,
        settings.fps,
        "skip" if settings.on_bad_sample == "skip" else "error",
    )
    for problem in joined.opened.problems:
        logger.warning("Skipped: %s", problem.message)
    for each in (*joined.opened.left_out, *joined.opened.remarks):
        # Of several, each names its own.
        logger.warning("%s", each if len(data) > 1 else f"{data[0]}: {each}")
    return joined


def _check_outside_of_data(settings: TrainSettings, name: str) -> None:
    """Refuses a folder whose content would be taken for samples when training starts again."""
    folder = getattr(settings, name)
    if folder is None:
        return
    read = [("data_dir", each) for each in settings.data_dirs]
    if settings.validation_data is not None:
        read.append(("validation_data", settings.validation_data))
    for data, text in read:
        root = parse_place(text).place
        if not Path(root).is_dir():
            continue
        if is_inside(folder, root):
            raise UsageError(
                f"--{name} {folder} lies in --{data} {root}: what is written there would be read "
                "as samples the next time. Name a folder beside it."
            )


def make_feeds(
    settings: TrainSettings,
    loader: Loader,
    held_out_data: OpenedData | None,
    make_control: MakeControl | None,
    models: TrainingModels,
    mesh: Mesh,
    trainer: Trainer,
    progress: Progress,
) -> tuple[Feed, HeldOutLoss | None]:
    """The training data, and the loss on the held-out data if there are any.

    Args:
        settings: of the run.
        loader: of the training data.
        held_out_data: what the held-out loss is measured on, if anything is.
        make_control: makes control frames, where a ControlNet trains.
        models: encode what is not cached.
        mesh: of the devices.
        trainer: computes the held-out loss.
        progress: shows how far the cache is filled.

    Raises:
        HotshotError: a clip cannot be read while the cache is filled.
    """
    encoders = Encoders(models.components, mesh, settings.max_vae_encode)
    cached = None
    if settings.cache_dir is not None:
        cached = CachedLatents(Cache(Path(settings.cache_dir)), models.components)

    def feed(loader: Loader) -> Feed:
        prepare = decode_frames if cached is None else cached.prepare
        if cached is not None:
            cached.fill(loader, progress)
        loader.prepare = prepare if make_control is None else ControlFrames(make_control, prepare)
        return Feed(loader, encoders, mesh, text_trains=settings.train_text_encoder)

    training = feed(loader)
    held_out = None
    if held_out_data is not None:
        held_out_feed = feed(Loader(held_out_data.source, loader.config.by_rule))
        held_out = HeldOutLoss(trainer, held_out_feed, settings.validation_batches)
    if cached is not None:
        encoders.release()
    return training, held_out


def make_clip_validation(
    settings: TrainSettings,
    feed: Feed,
    held_out: HeldOutLoss | None,
    make_control: MakeControl | None,
    models: TrainingModels,
) -> ClipValidation | None:
    """What makes clips of the test prompts; None where there are no prompts.

    Where a ControlNet trains, the clips follow the first clips of the held-out data, or of the
    training data, and without `--test_prompts` the prompts are theirs.

    Args:
        settings: of the run.
        feed: the training data.
        held_out: the loss on the held-out data, if there are any.
        make_control: makes control frames, where a ControlNet trains.
        models: make the clips.

    Raises:
        HotshotError: a clip that is to be followed cannot be read.
    """
    samples = [Sample(prompt) for prompt in DEFAULT_PROMPTS]
    if settings.sample_prompts is not None:
        samples = read_samples(settings.sample_prompts)
    elif settings.test_prompts is not None:
        parts = settings.test_prompts.split("|")
        samples = [Sample(part.strip()) for part in parts if part.strip()]
    if not samples:
        return None
    size = feed.loader.used_sizes[-1]
    control: list[np.ndarray] | None = None
    if make_control is not None:
        source = (feed if held_out is None else held_out.feed).loader.source
        clips = [source[number % len(source)] for number in range(len(samples))]
        frames = range(settings.video_length)
        prepare = ControlFrames(make_control)
        control = [np.asarray(prepare(ClipRequest(c, frames, size))["control"]) for c in clips]
        if settings.test_prompts is None and settings.sample_prompts is None:
            samples = [Sample(settings.captions.fixed(clip.prompt)) for clip in clips]
    config = ClipConfig(
        samples=samples,
        size=size,
        resolution=settings.resolution,
        # Small models are trained on small clips, and know nothing of films.
        original_size=ORIGINAL_SIZE if settings.resolution in SIZES_BY_RESOLUTION else size,
        frames=settings.video_length,
        steps=settings.validation_steps,
        precision="f32" if settings.mixed_precision == "no" else "bf16",
        **FEW_STEPS.get(settings.train, {}),
    )
    folder = Path(settings.output_dir) / VALIDATION
    return ClipValidation(models.components, models.division, config, folder, control)
