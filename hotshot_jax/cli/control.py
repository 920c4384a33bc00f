"""What the ControlNet flags ask for: models, control frames, strengths and windows."""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np

from hotshot_jax.cli.settings import InferSettings
from hotshot_jax.control.preprocess import Preprocessing, make_control_frames
from hotshot_jax.control.windows import ControlWindow, control_windows
from hotshot_jax.errors import UsageError
from hotshot_jax.media.clip import Clip
from hotshot_jax.media.output import check_output
from hotshot_jax.media.read import open_clip, read_key_frames
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.pipelines.control import ControlInput

logger = logging.getLogger(__name__)

_CONTROLNETS = {
    "canny": "diffusers/controlnet-canny-sdxl-1.0",
    "depth": "diffusers/controlnet-depth-sdxl-1.0",
}


@dataclasses.dataclass(frozen=True)
class ControlPlan:
    """The checked ControlNet flags of a run.

    Attributes:
        controlnets: path or Hub id of each ControlNet.
        clips: what each follows, opened.
        windows: strength and window of each.
        control_types: kind of the control frames of each union ControlNet, None for others.
        preprocessing: how control frames are made of the clips.
    """

    controlnets: tuple[str, ...] = ()
    clips: tuple[Clip, ...] = ()
    windows: tuple[ControlWindow, ...] = ()
    control_types: tuple[int | None, ...] = ()
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)


def plan_control(settings: InferSettings) -> ControlPlan:
    """Checks the ControlNet flags, and opens the clips.

    Raises:
        UsageError: flags contradict each other, or a value is out of range.
        HotshotError: a clip cannot be read.
    """
    wanted = settings.control_type is not None or bool(settings.controlnet)
    if not wanted:
        if settings.gif:
            logger.warning("--gif has no effect without --control_type or --controlnet.")
        elif settings.save_control is not None:
            raise UsageError("--save_control needs --gif and --control_type or --controlnet.")
        return ControlPlan()
    if not settings.gif:
        raise UsageError("A ControlNet needs something to follow: give --gif CLIP.")
    controlnets = settings.controlnet or (_CONTROLNETS[str(settings.control_type)],)
    count = len(controlnets)
    if len(settings.gif) not in (1, count):
        raise UsageError(
            f"--gif has {len(settings.gif)} values for {count} ControlNet{'s' * (count != 1)}; "
            "give one for each, or one for all."
        )
    if len(settings.control_type_id) not in (0, count):
        raise UsageError(
            f"--control_type_id has {len(settings.control_type_id)} values for {count} "
            f"ControlNet{'s' * (count != 1)}; give one for each, or none."
        )
    preprocessing = Preprocessing(
        settings.control_preprocess,
        settings.canny_low_threshold,
        settings.canny_high_threshold,
        settings.depth_checkpoint,
    )
    windows = control_windows(
        count,
        scales=settings.controlnet_conditioning_scale,
        starts=settings.control_guidance_start,
        ends=settings.control_guidance_end,
    )
    if settings.save_control is not None:
        check_output(settings.save_control, settings.video_length, settings.overwrite)
    clips = [open_clip(path) for path in settings.gif]
    types: Sequence[int | None] = settings.control_type_id or [None] * count
    return ControlPlan(
        controlnets,
        tuple(clips * count if len(clips) == 1 else clips),
        windows,
        tuple(types),
        preprocessing,
    )


def control_inputs(plan: ControlPlan, settings: InferSettings) -> list[ControlInput]:
    """Makes the control frames of each ControlNet.

    Args:
        plan: what `plan_control` gave.
        settings: with width and height.

    Raises:
        UsageError: a clip has too few frames.
        HotshotError: a clip is damaged, or what makes control frames is not installed.
    """
    assert settings.width is not None
    assert settings.height is not None
    made: dict[int, np.ndarray] = {}
    inputs = []
    for clip, window, kind in zip(plan.clips, plan.windows, plan.control_types, strict=True):
        if id(clip) not in made:
            frames = read_key_frames(clip, settings.video_length, settings.video_duration)
            scaled = np.stack(
                [scale_aspect_fill(frame, settings.width, settings.height) for frame in frames]
            )
            made[id(clip)] = make_control_frames(scaled, settings.control_type, plan.preprocessing)
        inputs.append(ControlInput(made[id(clip)], window, kind))
    return inputs
