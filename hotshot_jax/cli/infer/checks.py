"""What no model could do, and the size that a model is used at: before anything is loaded."""

import dataclasses
import logging

from hotshot_jax.cli.flags import flags_of
from hotshot_jax.cli.infer.arguments import native_settings
from hotshot_jax.cli.infer.clip import context_of
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.convert.assembly import known_positions
from hotshot_jax.errors import UsageError
from hotshot_jax.media import aspect_ratios
from hotshot_jax.sampling.request import Request, block_names
from hotshot_jax.schedulers import make_scheduler

logger = logging.getLogger(__name__)

_DEFAULT_SIZE = (672, 384)
# What every SDXL model has; the pipeline checks again with what the loaded one has.
_LATENT_PIXELS = 8
_ENCODER_DEPTH = 12
_LEVELS = 3
_MOST_STEPS = 1000
_SEEDS = 2**64


def check_settings(settings: InferSettings) -> None:
    """Refuses what no model could do.

    Raises:
        UsageError: a setting is out of range.
    """
    if not 0 <= settings.seed < _SEEDS:
        raise UsageError(f"--seed is {settings.seed}; expected a whole number from 0 to 2**64 - 1.")
    if not 1 <= settings.steps <= _MOST_STEPS:
        raise UsageError(f"--steps is {settings.steps}; expected 1 to {_MOST_STEPS}.")
    try:
        make_scheduler(settings.scheduler, {"_class_name": "EulerDiscreteScheduler"})
    except UsageError as error:
        raise UsageError(f"--scheduler {settings.scheduler}: {error}") from error
    width, height = _DEFAULT_SIZE
    Request(
        height=height if settings.height is None else settings.height,
        width=width if settings.width is None else settings.width,
        video_length=settings.video_length,
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        guidance_rescale=settings.guidance_rescale,
        original_size=(settings.og_width, settings.og_height),
        crops_coords_top_left=(0, 0),
        target_size=(settings.target_width, settings.target_height),
        eta=settings.eta,
        clip_skip=settings.clip_skip,
        denoising_end=None,
        context=context_of(settings),
        motion_scale=settings.motion_scale,
        cache_interval=settings.cache_interval,
        guidance_interval=settings.guidance_interval,
    ).check(
        multiple=_LATENT_PIXELS,
        positions=known_positions(settings.temporal or settings.pretrained_path),
        encoder_depth=_ENCODER_DEPTH,
        blocks=block_names(_LEVELS),
    )


def with_size(settings: InferSettings) -> InferSettings:
    """The settings with width and height; what the model was not trained on is told."""
    native = native_settings(settings.pretrained_path, flags_of(InferSettings))
    width, height = _DEFAULT_SIZE
    if settings.width is not None:
        width = settings.width
    if settings.height is not None:
        height = settings.height
    if not native and not aspect_ratios.is_trained_size(width, height):
        logger.warning(
            "Hotshot-XL was not trained on %d x %d; --aspect_ratio takes the sizes it knows.",
            width,
            height,
        )
    return dataclasses.replace(settings, width=width, height=height)
