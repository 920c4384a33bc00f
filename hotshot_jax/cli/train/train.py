"""`train.py`: a checkpoint and clips become a better checkpoint."""

import contextlib
import dataclasses
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hotshot_jax.cli.compilation_cache import chosen_folder, compilation_cache
from hotshot_jax.cli.hosts import TRAINING_WAYS_OUT, explained_memory_errors, on_hosts, use_device
from hotshot_jax.cli.run import program_name, say
from hotshot_jax.cli.terminal_progress import TerminalProgress
from hotshot_jax.cli.train.checks import (
    Planned,
    check_effects,
    check_effects_of,
    check_settings,
    checked_factors,
    checked_rank,
)
from hotshot_jax.cli.train.command import PROGRAM
from hotshot_jax.cli.train.data import (
    RunData,
    check_same_data,
    make_clip_validation,
    make_feeds,
    open_run_data,
)
from hotshot_jax.cli.train.output import (
    BEST,
    EXPORT,
    VALIDATION,
    check_output_dir,
    least_held_out_loss,
    save_config,
    save_summary,
)
from hotshot_jax.cli.train.plan import (
    control_maker,
    divide,
    largest_latents,
    loader_config,
    step_config,
    step_count,
    step_identity,
    warn_of_small_buckets,
    where_numbers_go,
)
from hotshot_jax.cli.train.progress import TrainingProgress
from hotshot_jax.cli.train.publish import check_publishing, publish
from hotshot_jax.cli.train.resume import Identity, checkpoints_to_resume, resume
from hotshot_jax.cli.train.settings import TrainSettings
from hotshot_jax.cli.train.start_settings import with_rank_of_start
from hotshot_jax.compile_effort import effort_options
from hotshot_jax.data.loader import Loader
from hotshot_jax.errors import HotshotError
from hotshot_jax.parallel.hosts import failing_together, is_first
from hotshot_jax.parallel.mesh import create_mesh, mesh_config, slice_count
from hotshot_jax.parallel.placement import on_host
from hotshot_jax.parallel.shared_folder import check_seen_by_all_hosts
from hotshot_jax.runtime.precision import current_platform
from hotshot_jax.runtime.program_folder import ProgramFolder
from hotshot_jax.runtime.stored_programs import StoredPrograms
from hotshot_jax.schedulers import make_scheduler
from hotshot_jax.training.feeding.feed import Feed, MakeControl
from hotshot_jax.training.layer_groups import describe_factors
from hotshot_jax.training.optimizer import Schedule, learning_rate_schedule
from hotshot_jax.training.resources import describe_training_memory, training_memory
from hotshot_jax.training.running.checkpoint import Checkpoints
from hotshot_jax.training.running.interruption import StopRequest
from hotshot_jax.training.running.loop import Loop, LoopConfig
from hotshot_jax.training.running.metrics import Report, Reports, open_reports
from hotshot_jax.training.running.output_lock import only_training_in
from hotshot_jax.training.running.pace import Pace
from hotshot_jax.training.running.step import StepConfig, Trainer, TrainState, on_mesh
from hotshot_jax.training.running.validation import ClipValidation, HeldOutLoss
from hotshot_jax.training.trainees.models import TrainingModels, load_models
from hotshot_jax.training.trainees.trainee import Parameters, export

logger = logging.getLogger(__name__)


def train_on_hosts(settings: TrainSettings, given: Collection[str]) -> None:
    """Trains as the settings ask, together with the other hosts; see `train`."""
    check_settings(settings)
    check_effects(given, settings)
    settings = with_rank_of_start(settings, given)
    with on_hosts(program_name(PROGRAM), dataclasses.asdict(settings)):
        train(settings, given)


def train(settings: TrainSettings, given: Collection[str] = ()) -> None:
    """Trains as the settings ask.

    Args:
        settings: of the run.
        given: names of those that the command line gave, which are refused if they cannot act.

    Raises:
        UsageError: the settings cannot be met.
        HotshotError: the run failed.
        Interrupted: a signal stopped it, after it was saved.
    """
    config = step_config(settings)
    config.optimizer.check()
    check_output_dir(settings)
    make_control = control_maker(settings)
    data = open_run_data(settings)
    opened = data.training
    device = use_device(settings.device)
    sizes = mesh_config(
        settings.mesh,
        "train",
        jax.device_count(),
        frames=settings.video_length,
        slices=slice_count(jax.devices()),
    )
    effort_options(current_platform(), settings.compile_effort)
    mesh = create_mesh(sizes)
    loader = Loader(opened.source, loader_config(settings, mesh), mix=data.mix)
    check_same_data(settings, data)
    warn_of_small_buckets(loader)
    steps = step_count(settings, loader)
    check_effects_of(given, Planned(settings, steps, current_platform()))
    schedule = _schedule(settings, loader, steps)
    samples = opened.total - len({problem.sample for problem in opened.problems})
    _say(
        f"{device}; {samples} samples in {len(loader.used_sizes)} buckets; batches of "
        f"{loader.config.batch_size}; {steps} steps"
    )
    _say(where_numbers_go(settings.report_to))
    with failing_together():
        if is_first():
            check_publishing(settings)
    with (
        compilation_cache(chosen_folder(settings.compilation_cache)) as programs,
        explained_memory_errors(
            lambda: f"the model and {loader.config.batch_size} samples", TRAINING_WAYS_OUT
        ),
        _alone_in(Path(settings.output_dir)),
        contextlib.closing(
            Checkpoints(Path(settings.output_dir) / "checkpoints", settings.keep_checkpoints)
        ) as checkpoints,
    ):
        plan = _Plan(
            settings,
            config,
            data,
            loader,
            make_control,
            mesh,
            steps,
            schedule,
            checkpoints,
            programs,
        )
        _train(plan, given)


@dataclasses.dataclass(frozen=True)
class _Plan:
    """What is settled before a model is loaded."""

    settings: TrainSettings
    config: StepConfig
    data: RunData
    loader: Loader
    make_control: MakeControl | None
    mesh: Mesh
    steps: int
    schedule: Schedule
    checkpoints: Checkpoints
    programs: ProgramFolder | None


@dataclasses.dataclass(frozen=True)
class _Parts:
    """What the loop is made of."""

    models: TrainingModels
    identity: Identity
    trainer: Trainer
    feed: Feed
    held_out: HeldOutLoss | None
    clips: ClipValidation | None


def _train(plan: _Plan, given: Collection[str]) -> None:
    settings, loader, mesh = plan.settings, plan.loader, plan.mesh
    checkpoints, make_control = plan.checkpoints, plan.make_control
    output = Path(settings.output_dir)
    candidates = checkpoints_to_resume(settings, checkpoints)
    progress = TerminalProgress(quiet=not is_first())
    models = load_models(
        settings.pretrained_model_name_or_path,
        settings.unet_resume_path,
        lambda models: checked_factors(settings, checked_rank(given, divide(settings, models))),
        mesh,
        dtype=jnp.float32 if settings.mixed_precision == "no" else jnp.bfloat16,
        vae_dtype=jnp.bfloat16 if settings.vae_b16 else jnp.float32,
        seed=settings.seed,
        progress=progress,
    )
    started_predicting = models.components.scheduler_config.get("prediction_type", "epsilon")
    if settings.prediction_type is not None:
        models = models.predicting(settings.prediction_type)
    scheduler = make_scheduler("DDPMScheduler", models.components.scheduler_config)
    identity = Identity.of(models, started_predicting, scheduler)
    trainer = Trainer(
        models.division,
        scheduler,
        dataclasses.replace(
            plan.config, scaling_factor=models.components.vae.config.scaling_factor
        ),
        plan.schedule,
    )
    if trainer.factors:
        _say(describe_factors(trainer.factors, models.division.trained))
    state = on_mesh(trainer.init(models.trained, settings.seed), mesh)
    last_step = 0
    if candidates:
        state, said = resume(settings, candidates, state, identity, loader)
        last_step = int(state.step)
        said += [f"set aside as {path}" for path in checkpoints.set_aside_after(last_step)]
        _say("\n".join(said))
    memory = describe_training_memory(
        training_memory(
            state,
            models.frozen,
            models.components.unet,
            largest_latents(settings, loader, models.components.vae.config, mesh),
            settings.rematerialisation,
            models.components.text_encoders if settings.train_text_encoder else (),
        )
    )
    _say(memory)
    if is_first():
        save_config(output, settings)
    feed, held_out = make_feeds(
        settings, loader, plan.data.held_out, make_control, models, mesh, trainer, progress
    )
    clips = make_clip_validation(settings, feed, held_out, make_control, models)
    reports = Reports([Report()])
    if is_first():
        reports = open_reports(
            settings.report_to,
            output,
            settings.logging_dir,
            settings.project_name,
            settings.run_name,
            dataclasses.asdict(settings),
            last_step,
        )
    try:
        with explained_memory_errors(lambda: memory, TRAINING_WAYS_OUT):
            parts = _Parts(models, identity, trainer, feed, held_out, clips)
            state = _run_loop(plan, parts, reports, state, progress)
    finally:
        reports.close()
        if is_first():
            _say_summary(output, settings.price)
    _export(output / EXPORT, settings, models, trainer.result(state))
    if is_first():
        print(output / EXPORT)
    with failing_together():
        if is_first():
            publish(settings, output / VALIDATION, _data_facts(plan))


def _data_facts(plan: _Plan) -> Mapping[str, int | str]:
    sizes = ", ".join(f"{width} x {height}" for width, height in plan.loader.used_sizes)
    return {
        "samples": plan.data.training.total,
        "frames of a sample": plan.settings.video_length,
        "sizes in pixels": sizes,
        "samples a batch": plan.loader.config.batch_size,
    }


def _export(
    folder: Path, settings: TrainSettings, models: TrainingModels, trained: Parameters
) -> None:
    """Writes what is trained; all hosts have to call it together."""
    average = on_host(trained)
    if is_first():
        export(
            folder,
            models.folder,
            settings.unet_resume_path,
            models.division,
            average,
            models.components.scheduler_config,
        )


def _schedule(settings: TrainSettings, loader: Loader, steps: int) -> Schedule:
    rate = settings.learning_rate
    if settings.scale_lr:
        rate *= settings.gradient_accumulation_steps * loader.config.batch_size
    return learning_rate_schedule(settings.lr_scheduler, rate, settings.lr_warmup_steps, steps)


@contextlib.contextmanager
def _alone_in(output: Path) -> Iterator[None]:
    check_seen_by_all_hosts(output, "output_dir")
    with contextlib.ExitStack() as held:
        with failing_together():
            if is_first():
                held.enter_context(only_training_in(output))
        yield


def _stored_programs(plan: _Plan, parts: _Parts) -> StoredPrograms | None:
    if plan.programs is None or jax.process_count() > 1:
        return None
    made_of = step_identity(plan.settings, plan.steps, parts.models, parts.trainer)
    return StoredPrograms(plan.programs, made_of)


def _say_summary(output: Path, price: float | None) -> None:
    try:
        summary = save_summary(output, price)
    # The run is over, and its metrics are there.
    except (OSError, HotshotError) as error:
        logger.warning("There is no picture of the losses: %s", error)
        return
    if summary is not None:
        _say(f"in all: {summary.describe()}")


def _run_loop(
    plan: _Plan, parts: _Parts, reports: Reports, state: TrainState, progress: TerminalProgress
) -> TrainState:
    settings, frozen, held_out = plan.settings, parts.models.frozen, parts.held_out
    output = Path(settings.output_dir)
    # What an earlier start has measured.
    least = [least_held_out_loss(output, int(state.step))]

    def validate(step: int, state: TrainState) -> Mapping[str, float]:
        trained = parts.trainer.result(state)
        if parts.clips is not None:
            parts.clips.run(step, trained, frozen, reports)
        if held_out is None:
            return {}
        loss = held_out.run(trained, frozen)
        if settings.save == "best" and loss < least[0]:
            least[0] = loss
            _export(output / BEST, settings, parts.models, trained)
            _say(f"{output / BEST} is step {step}, with a held-out loss of {loss:.4g}")
        return {"loss_held_out": loss}

    shown = TrainingProgress(Pace(plan.steps), quiet=not is_first())
    with shown.shown(int(state.step)):
        loop = Loop(
            parts.trainer,
            parts.feed,
            frozen,
            plan.checkpoints,
            parts.identity.metadata(settings),
            reports,
            LoopConfig(
                steps=plan.steps,
                whole_epochs=settings.counts_epochs,
                save_every=settings.save_n_steps,
                save_from=settings.save_starting_step,
                validate_every=settings.validate_every_steps,
                validate_at_start=settings.run_validation_at_start,
                profile=settings.profiled(),
                profile_folder=Path(settings.output_dir) / "profile",
                compile_effort=settings.compile_effort,
            ),
            validate=validate,
            advance=shown.advance,
            compiling=progress.compiling,
            stored=_stored_programs(plan, parts),
        )
        stop = StopRequest()
        with stop.listening():
            state = loop.run(state, stop)
    for message, count in parts.feed.loader.skipped.items():
        logger.warning("Skipped %d times: %s", count, message)
    return state


def _say(text: str) -> None:
    if jax.process_index() == 0:
        say(text)
