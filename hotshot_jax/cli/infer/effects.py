"""Which flags of `infer.py` act in which runs."""

import logging
from collections.abc import Collection

from hotshot_jax.cli.flags import Acts, refuse_without_effect
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.key_frames import extremes
from hotshot_jax.errors import UsageError
from hotshot_jax.media.formats.output_form import TIMED_FORMS, output_form
from hotshot_jax.media.reading.fetch import is_url
from hotshot_jax.schedulers import DDIMScheduler, make_scheduler

logger = logging.getLogger(__name__)

_MODELS = ("pretrained_path", "base", "spatial_unet_base", "temporal", "vae", "controlnet")
_NEGATIVE = ("negative_prompt", "negative_prompt_2", "negative_prompt_at")


def _guided(settings: InferSettings) -> bool:
    return extremes(settings.guidance_scale)[1] > 1


def _clips(settings: InferSettings) -> list[str]:
    pictures = (
        settings.video,
        settings.extend,
        settings.mask,
        settings.first_frame,
        settings.last_frame,
    )
    at_frames = (argument.partition(":")[2].strip() for argument in settings.frame_at)
    return [*settings.gif, *filter(None, pictures), *at_frames]


def _moves(settings: InferSettings) -> bool:
    return settings.least_frames > 1


def _keeps(settings: InferSettings) -> bool:
    frames = (*settings.frame_at, settings.first_frame, settings.last_frame)
    return any((settings.mask, settings.extend, settings.smooth, *frames))


def _controlled(settings: InferSettings) -> bool:
    return bool(settings.control_type or settings.controlnet)


def _makes(settings: InferSettings, kind: str) -> bool:
    return kind in settings.control_type and settings.control_preprocess == "auto"


def _takes_eta(settings: InferSettings) -> bool:
    if settings.scheduler == "default":
        return True
    made = make_scheduler(settings.scheduler, {"_class_name": "EulerDiscreteScheduler"})
    return isinstance(made, DDIMScheduler)


def _is_timed(settings: InferSettings) -> bool:
    output = settings.output
    return bool(settings.gif) or output is None or output_form(output) in TIMED_FORMS


RULES = (
    Acts(
        ("gif",),
        # Saving without control is refused with more to say.
        lambda s: _controlled(s) or s.save_control is not None,
        "without --control_type or --controlnet",
    ),
    Acts(
        (
            "controlnet_conditioning_scale",
            "control_guidance_start",
            "control_guidance_end",
            "control_type_id",
            "guess_mode",
            "control_preprocess",
            "canny_low_threshold",
            "canny_high_threshold",
            "depth_checkpoint",
        ),
        _controlled,
        "without --control_type or --controlnet",
    ),
    Acts(
        ("canny_low_threshold", "canny_high_threshold"),
        lambda s: _makes(s, "canny"),
        "unless edges are made: --control_type canny without --control_preprocess none",
    ),
    Acts(
        ("depth_checkpoint",),
        lambda s: _makes(s, "depth"),
        "unless depth is made: --control_type depth without --control_preprocess none",
    ),
    Acts(
        ("allow_private_urls",),
        lambda s: any(map(is_url, _clips(s))),
        "unless --gif is a URL, or another clip or picture",
    ),
    Acts(("lora_allow_partial",), lambda s: bool(s.lora), "without --lora"),
    Acts(
        ("variant",),
        lambda s: any(getattr(s, name) for name in _MODELS),
        "on the built-in model; name one with --pretrained_path",
    ),
    Acts(("prompt",), lambda s: s.prompts_file is None, "beside --prompts_file"),
    Acts(
        ("prompt", "prompts_file"),
        lambda s: 0 not in dict(s.prompt_at),
        "beside a --prompt_at for frame 0, where it would hold",
    ),
    Acts(
        ("negative_prompt",),
        lambda s: 0 not in dict(s.negative_prompt_at),
        "beside a --negative_prompt_at for frame 0, where it would hold",
    ),
    Acts(
        ("guidance_rescale", "guidance_interval"),
        _guided,
        "without guidance, which is a --guidance_scale above 1",
    ),
    Acts(("eta",), _takes_eta, "on this --scheduler; it is for ddim"),
    Acts(("video_duration",), _is_timed, "on pictures"),
    Acts(("repaint",), _keeps, "where nothing is kept, as by --first_frame or --mask"),
    Acts(
        ("first_frame_attention",),
        lambda s: s.video is not None or _keeps(s),
        "without something to start from, as --first_frame or --video",
    ),
    Acts(("motion_scale",), _moves, "on a single frame, where the temporal layers are off"),
)


def check_effects(given: Collection[str], settings: InferSettings) -> None:
    """Checks that everything on the command line acts.

    Args:
        given: names of the settings that the command line gave.
        settings: of the run.

    Raises:
        UsageError: a flag cannot act; the message says what it needs.
    """
    defaults = InferSettings()
    # A default asks for nothing, also where it is written down.
    asked = [name for name in given if getattr(settings, name) != getattr(defaults, name)]
    refuse_without_effect(asked, settings, RULES)
    idle = [name for name in _NEGATIVE if name in asked and not _guided(settings)]
    if idle and settings.preset is None:
        logger.warning(
            "--%s has no effect with --guidance_scale %g, which is no guidance.",
            " and --".join(idle),
            extremes(settings.guidance_scale)[1],
        )


def check_effort(platform: str, effort: str | None, given: Collection[str]) -> None:
    """Checks that `--compile_effort`, where the command line gives it, acts.

    Raises:
        UsageError: the run is not on a TPU.
    """
    if effort is not None and "compile_effort" in given and platform != "tpu":
        raise UsageError(
            f"--compile_effort {effort} is for TPUs, and this run is on a {platform.upper()}; "
            "leave it out."
        )
