"""What the flags ask of a clip's frames, looked at before any model is loaded."""

import logging
from collections.abc import Collection, Sequence

from hotshot_jax.cli.infer.job_settings import clip_settings
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.key_frames import check_keys, check_numbers
from hotshot_jax.convert.assembly import known_positions
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.windows import ContextConfig

logger = logging.getLogger(__name__)

_OF_WINDOWS = (
    "context_length",
    "context_overlap",
    "context_schedule",
    "context_stride",
    "context_fuse",
    "context_batch",
    "initial_noise",
)
_UNIFORM = ("standard_uniform", "looped_uniform")


def context_of(settings: InferSettings) -> ContextConfig | None:
    """How the clip is divided into windows, as far as it is known before loading.

    Raises:
        UsageError: the flags contradict each other.
    """
    positions = known_positions(settings.temporal or settings.pretrained_path)
    return clip_settings(settings, settings.prompt).context(positions)


def windows_of_clip(settings: InferSettings) -> tuple[int, int]:
    """How many frames are seen together, and how many windows of them a step has."""
    context = context_of(settings)
    if context is None:
        return settings.video_length, 1
    windows = context.windows(settings.video_length, 0)
    return len(windows[0]), len(windows)


def check_clip(settings: InferSettings, given: Collection[str]) -> None:
    """Checks key frames, windows and loops.

    What acts on windows alone is a warning on a clip of one.

    Args:
        settings: of the run.
        given: names of the settings on the command line.

    Raises:
        UsageError: they cannot be met, or contradict each other.
    """
    frames = settings.video_length
    for name in ("prompt_at", "negative_prompt_at"):
        _check_keys(name, getattr(settings, name), frames)
    for scale in settings.controlnet_conditioning_scale:
        check_numbers("controlnet_conditioning_scale", scale, frames, 0.0)
    if settings.ping_pong and settings.loop:
        raise UsageError(
            "--loop and --ping_pong are two ways to come back to the first frame; give one of them."
        )
    if settings.ping_pong and frames < 3:
        raise UsageError(f"--ping_pong needs at least 3 frames, and --video_length is {frames}.")
    if settings.context_batch is not None and settings.context_batch < 1:
        raise UsageError(f"--context_batch is {settings.context_batch}; expected 1 or more.")
    context = context_of(settings)
    if context is not None and context.stride > 1:
        # Only with several levels it takes a look at every step to know that no frame is left out.
        for step in range(settings.steps):
            context.windows(frames, step)
    idle = [f"--{name}" for name in _OF_WINDOWS if name in given]
    # What is added to a clip is made with frames of it, and a window is what it says.
    if idle and settings.extend is None and windows_of_clip(settings)[1] == 1:
        logger.warning(
            "Without effect, since %d frames are made in one window: %s. A --context_length below "
            "that makes shorter ones.",
            frames,
            ", ".join(idle),
        )
    elif "context_stride" in given and context is not None and context.schedule not in _UNIFORM:
        logger.warning(
            "--context_stride has no effect with --context_schedule %s; it is for %s.",
            context.schedule,
            " and ".join(_UNIFORM),
        )


def _check_keys(name: str, keys: Sequence[tuple[int, str]], frames: int) -> None:
    at = [frame for frame, _ in keys]
    if at:
        check_keys(name, at, frames)
    twice = next((frame for frame in at if at.count(frame) > 1), None)
    if twice is not None:
        raise UsageError(f"--{name} is given twice for frame {twice}; give it once.")
