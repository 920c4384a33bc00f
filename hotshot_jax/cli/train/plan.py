"""From the settings of `train.py` to the configurations of its parts."""

import logging
import math
from pathlib import Path

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from hotshot_jax.choices import AUTO
from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.train.settings import WITHOUT_A_SAY, TrainSettings
from hotshot_jax.conditioning.control.preprocess import (
    Preprocessing,
    check_available,
    make_control_frames,
)
from hotshot_jax.convert.formats.controlnet_files import open_controlnet
from hotshot_jax.convert.prepare import prepare_component
from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.models import AutoencoderKLConfig
from hotshot_jax.parallel.placement import batch_devices, held_rows
from hotshot_jax.pipelines.components import Components
from hotshot_jax.training.consistency import ConsistencyConfig
from hotshot_jax.training.feeding.feed import MakeControl
from hotshot_jax.training.loss import LossConfig
from hotshot_jax.training.optimizer import OptimizerConfig
from hotshot_jax.training.running.metrics import chosen_reports
from hotshot_jax.training.running.step import StepConfig, Trainer
from hotshot_jax.training.trainees.controlnet import ControlNetTrainee
from hotshot_jax.training.trainees.lora import TEXT_ENCODERS, LoraTrainee
from hotshot_jax.training.trainees.models import TrainingModels
from hotshot_jax.training.trainees.trainee import Division, Trainee

logger = logging.getLogger(__name__)


def step_config(settings: TrainSettings) -> StepConfig:
    """How a step is computed."""
    if settings.mixed_precision == "fp16":
        logger.warning(
            "--mixed_precision fp16 is computed in bfloat16, which needs no loss scaling."
        )
    return StepConfig(
        loss=_consistency_config(settings)
        if settings.train == "lcm"
        else LossConfig(
            settings.noise_offset, settings.snr_gamma, settings.snr_weights, settings.loss
        ),
        optimizer=OptimizerConfig(
            beta1=settings.adam_beta1,
            beta2=settings.adam_beta2,
            weight_decay=settings.adam_weight_decay,
            epsilon=settings.adam_epsilon,
            max_grad_norm=settings.max_grad_norm,
            name=settings.optimizer_name,
            learning_rate_factors=settings.learning_rate_factors or {},
        ),
        accumulation_steps=settings.gradient_accumulation_steps,
        ema_decay=settings.ema_decay,
        text_dropout=settings.text_dropout,
        rematerialisation=settings.rematerialisation,
        zero_nan_latents=settings.latent_nan_checking,
    )


def _consistency_config(settings: TrainSettings) -> ConsistencyConfig:
    return ConsistencyConfig(
        w_min=settings.w_min,
        w_max=settings.w_max,
        num_ddim_timesteps=settings.num_ddim_timesteps,
        loss=settings.loss,
        huber_c=settings.huber_c,
        timestep_scaling_factor=settings.timestep_scaling_factor,
        target=settings.lcm_target,
    )


def loader_config(settings: TrainSettings, mesh: Mesh) -> LoaderConfig:
    """How clips become batches."""
    batch_size = settings.train_batch_size * batch_devices(mesh)
    return LoaderConfig(
        batch_size=batch_size,
        frames=settings.video_length,
        resolution=settings.resolution,
        aspect_ratio=settings.aspect_ratio,
        seed=settings.seed,
        host_index=jax.process_index(),
        host_count=jax.process_count(),
        slots=held_rows(mesh, batch_size, jax.process_index()),
        on_bad_sample="skip" if settings.on_bad_sample == "skip" else "error",
        stride=settings.frame_stride,
        fps=settings.fps,
        mirror=settings.mirror,
        random_crop=settings.random_crop,
        captions=settings.captions,
    )


def step_count(settings: TrainSettings, loader: Loader) -> int:
    """Updates of the whole run."""
    if not settings.counts_epochs:
        return settings.max_train_steps
    updates = math.ceil(loader.batches_per_epoch / settings.gradient_accumulation_steps)
    return settings.num_train_epochs * updates


def step_identity(
    settings: TrainSettings, steps: int, models: TrainingModels, trainer: Trainer
) -> str:
    """All that a compiled training step is made of, but for shapes and devices.

    More than that stands in it: a setting that does not matter costs a compilation, and one that is
    missing would run another step than the one that is asked for.

    Args:
        settings: of the run.
        steps: updates of the whole run.
        models: of the run.
        trainer: whose step it is.
    """
    asked = {
        name: getattr(settings, name)
        for name, flag in flags_of(TrainSettings).items()
        if flag.group not in WITHOUT_A_SAY
    }
    components = models.components
    return repr((asked, steps, trainer.config, components.structure, components.scheduler_config))


def warn_of_small_buckets(loader: Loader) -> None:
    """Warns of clips that stand in one batch several times, since too few share their bucket."""
    if loader.mix is not None:
        # Its batches are never filled up.
        return
    batch = loader.config.batch_size
    for bucket in loader.plan.used_buckets():
        count = loader.plan.count(bucket)
        if count < batch:
            width, height = loader.sizes[bucket]
            logger.warning(
                "The bucket %d x %d holds %d of %d samples that a batch takes: each stands in it "
                "about %.3g times, and weighs that much more in training. Give a smaller "
                "--train_batch_size, or one --aspect_ratio for all samples.",
                width,
                height,
                count,
                batch,
                batch / count,
            )


def where_numbers_go(report_to: str) -> str:
    """One line for the person who waits."""
    chosen = chosen_reports(report_to)
    line = " and ".join(("numbers go to metrics.jsonl", *chosen))
    if report_to != AUTO:
        return line
    if chosen:
        return f"{line}, which are installed; --report_to none keeps them in the file alone"
    return f"{line}; pip install 'hotshot-jax[logging]' brings wandb and tensorboard"


def divide(settings: TrainSettings, models: Components) -> Trainee:
    """What trains.

    Args:
        settings: of the run.
        models: of the checkpoint, with shapes in place of arrays.
    """
    unet = models.unet
    if settings.train == "controlnet":
        start = settings.controlnet_model_name_or_path
        if start is None:
            return ControlNetTrainee.of(unet)
        opened = prepare_component(open_controlnet(start), dtype=jnp.float32)
        return ControlNetTrainee.of(unet, opened)
    selection, targets = settings.train, settings.lora_targets
    if settings.video_length == 1 and "temporal" in settings.trained_layers:
        logger.info(
            "Single frames do not pass through the temporal layers, which stay as they are."
        )
        selection, targets = "spatial", "spatial"
    if settings.trains_factors:
        encoders = {name: models.model(name) for name in TEXT_ENCODERS}
        lora = LoraTrainee.of(
            unet,
            targets,
            settings.lora_rank,
            settings.lora_layers,
            encoders if settings.train_text_encoder else None,
        )
        start = settings.network_weights
        return lora if start is None else lora.starting_from(Path(start))
    return Division.of(unet, selection)


def control_maker(settings: TrainSettings) -> MakeControl | None:
    """What makes the control frames of clips; None where no ControlNet trains.

    Raises:
        HotshotError: what they are made with is not installed.
    """
    if settings.train != "controlnet":
        return None
    preprocessing = Preprocessing(
        canny_low_threshold=settings.canny_low_threshold,
        canny_high_threshold=settings.canny_high_threshold,
    )
    check_available(settings.control_type, preprocessing)
    return lambda frames: make_control_frames(frames, settings.control_type, preprocessing)


def largest_latents(
    settings: TrainSettings, loader: Loader, vae: AutoencoderKLConfig, mesh: Mesh
) -> tuple[int, ...]:
    """The most that one device works on: `(batch, frames, height, width, channels)` of latents."""
    width, height = max(loader.used_sizes, key=math.prod)
    frames = math.ceil(settings.video_length / mesh.shape["frames"])
    factor = vae.scale_factor
    return (
        settings.train_batch_size,
        frames,
        height // factor,
        width // factor,
        vae.latent_channels,
    )
