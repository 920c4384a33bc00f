"""What the ControlNet flags ask for: models, control frames, strengths and windows."""

import contextlib
import dataclasses
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hotshot_jax.builtin import CONDITIONING_SCALE, builtin_controlnets
from hotshot_jax.cli.infer.outputs import numbered
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.control.preprocess import (
    Preprocessing,
    check_available,
    make_control_frames,
)
from hotshot_jax.conditioning.control.windows import DEFAULT_SCALE, ControlWindow, control_windows
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.measure.frames import measure_frames
from hotshot_jax.media.reading.clip import Clip
from hotshot_jax.media.reading.fetch import FetchLimits, fetch, is_url
from hotshot_jax.media.reading.read import open_clip, read_key_frames
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.media.write import check_output, output_target, write_video
from hotshot_jax.pipelines.control import ControlInput

logger = logging.getLogger(__name__)

# Of a loop it is 1 or less.
_OPEN_GAP = 1.25

_CONTROLNETS = {
    "canny": "diffusers/controlnet-canny-sdxl-1.0",
    "depth": "diffusers/controlnet-depth-sdxl-1.0",
}


@dataclasses.dataclass(frozen=True)
class ControlPlan:
    """The checked ControlNet flags of a run.

    Attributes:
        controlnets: path or Hub id of each ControlNet; where none is named, one that goes with the
            model and the control type.
        sources: what they follow: key frames of each source, uint8
            `[frames, height, width, 3]` in its own size.
        followed: which of the sources each ControlNet follows.
        made_by: "canny" or "depth" for each ControlNet, None for ready-made control frames.
        windows: strength and window of each.
        control_types: kind of the control frames of each union ControlNet, None for others.
        preprocessing: how control frames are made of the sources.
    """

    controlnets: tuple[str, ...] = ()
    sources: tuple[np.ndarray, ...] = ()
    followed: tuple[int, ...] = ()
    made_by: tuple[str | None, ...] = ()
    windows: tuple[ControlWindow, ...] = ()
    control_types: tuple[int | None, ...] = ()
    preprocessing: Preprocessing = dataclasses.field(default_factory=Preprocessing)


def plan_control(settings: InferSettings, outputs: Sequence[str] = ()) -> ControlPlan:
    """Checks the ControlNet flags and reads the sources, before any model is loaded.

    Args:
        settings: the settings.
        outputs: where the videos of the run go.

    Raises:
        UsageError: flags contradict each other, or a value is out of range; a source does not exist
            or has too few frames.
        HotshotError: a source cannot be read, or what makes control frames is not installed.
    """
    if not settings.control_type and not settings.controlnet:
        if settings.save_control is not None:
            raise UsageError("--save_control needs --gif and --control_type or --controlnet.")
        if settings.gif:
            logger.warning("--gif has no effect without --control_type or --controlnet.")
        return ControlPlan()
    if not settings.gif:
        flag = "--control_type" if settings.control_type else "--controlnet"
        raise UsageError(f"{flag} needs a clip to follow: give --gif with a GIF, MP4 or folder.")
    controlnets, default_scale = _controlnets(settings)
    count = len(controlnets)
    _check_count("--gif", len(settings.gif), count, "one for all")
    kinds: Sequence[str | None] = settings.control_type or (None,)
    _check_count("--control_type", len(kinds), count, "one for all")
    if settings.control_type_id:
        _check_count("--control_type_id", len(settings.control_type_id), count, "none")
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
        default_scale=default_scale,
    )
    _check_save_paths(settings, count, outputs)
    for kind in kinds:
        check_available(kind, preprocessing)
    sources = [_read_source(source, settings) for source in settings.gif]
    if settings.loop:
        _warn_of_open_clips(settings.gif, sources)
    types: Sequence[int | None] = settings.control_type_id or [None] * count
    return ControlPlan(
        controlnets,
        tuple(sources),
        tuple(range(count)) if len(sources) > 1 else (0,) * count,
        tuple(kinds) if len(kinds) > 1 else tuple(kinds) * count,
        windows,
        tuple(types),
        preprocessing,
    )


def _warn_of_open_clips(names: Sequence[str], sources: Sequence[np.ndarray]) -> None:
    """Tells of clips that do not loop, where what follows them is to."""
    for name, frames in zip(names, sources, strict=True):
        gap = measure_frames(frames).loop_gap if len(frames) > 1 else 0.0
        if gap > _OPEN_GAP:
            logger.warning(
                "--loop: %s does not loop, and what follows it will hardly do: from its last frame "
                "to its first the picture changes %.1f times as much as between any neighbours.",
                name,
                gap,
            )


def control_inputs(plan: ControlPlan, settings: InferSettings) -> list[ControlInput]:
    """Makes the control frames of each ControlNet.

    Args:
        plan: what `plan_control` gave.
        settings: with width and height.

    Raises:
        HotshotError: what makes control frames cannot be loaded.
    """
    assert settings.width is not None and settings.height is not None
    scaled = [
        np.stack([scale_aspect_fill(frame, settings.width, settings.height) for frame in frames])
        for frames in plan.sources
    ]
    wanted = list(zip(plan.followed, plan.made_by, strict=True))
    made = {
        (source, kind): make_control_frames(scaled[source], kind, plan.preprocessing)
        for source, kind in dict.fromkeys(wanted)
    }
    return [
        ControlInput(made[source_and_kind], window, control_type)
        for source_and_kind, window, control_type in zip(
            wanted, plan.windows, plan.control_types, strict=True
        )
    ]


def save_control(controls: Sequence[ControlInput], settings: InferSettings) -> list[str]:
    """Writes the control frames where `--save_control` says, if it says so; gives the paths.

    Raises:
        HotshotError: they cannot be written.
    """
    paths = control_outputs(settings, len(controls))
    for index, path in enumerate(paths):
        frames = controls[index].frames
        write_video(path, frames, settings.video_duration, {}, settings.overwrite)
    return paths


def _controlnets(settings: InferSettings) -> tuple[tuple[str, ...], float]:
    """The ControlNets, and the strength that they have unless one is asked for.

    Where none is named, they go with the model and the control types.
    """
    if settings.controlnet:
        return settings.controlnet, DEFAULT_SCALE
    if settings.pretrained_path is not None:
        published = tuple(_CONTROLNETS[control_type] for control_type in settings.control_type)
        return published, DEFAULT_SCALE
    own = builtin_controlnets()
    for control_type in settings.control_type:
        if control_type not in own:
            others = f", only for {' and '.join(own)}" if own else ""
            raise UsageError(
                f"The built-in model has no ControlNet for {control_type}{others}: name one with "
                "--controlnet, or a model with --pretrained_path."
            )
    paths = tuple(str(own[control_type]) for control_type in settings.control_type)
    return paths, CONDITIONING_SCALE


def _check_count(flag: str, values: int, controlnets: int, otherwise: str) -> None:
    if values != controlnets and not (values == 1 and otherwise == "one for all"):
        raise UsageError(
            f"{flag} has {values} value{'s' * (values != 1)} for {controlnets} "
            f"ControlNet{'s' * (controlnets != 1)}; give one for each, or {otherwise}."
        )


def control_outputs(settings: InferSettings, controlnets: int) -> list[str]:
    """Where the control frames of each ControlNet are written, if they are."""
    base = settings.save_control
    if base is None or controlnets == 0:
        return []
    if controlnets == 1:
        return [base]
    return [numbered(base, number, controlnets) for number in range(1, controlnets + 1)]


def _check_save_paths(settings: InferSettings, controlnets: int, outputs: Sequence[str]) -> None:
    taken = {output_target(output) for output in outputs}
    for path in control_outputs(settings, controlnets):
        if output_target(path) in taken:
            raise UsageError(f"--save_control {path} is also where the result goes; name another.")
        try:
            check_output(path, settings.video_length, settings.overwrite)
        except UsageError as error:
            raise UsageError(str(error).replace("`output`", "`save_control`")) from error


@contextlib.contextmanager
def read_clip(flag: str, source: str, settings: InferSettings) -> Iterator[Clip]:
    """Opens what a flag names, a path or URL, to be read while the context lasts.

    Raises:
        UsageError: it is empty, or there is nothing there.
        HotshotError: it cannot be read or fetched. Messages name the source.
    """
    if not source.strip():
        raise UsageError(f"{flag} is empty; expected a clip's path or URL.")
    if not is_url(source):
        path = os.path.expanduser(source)
        try:
            yield open_clip(path)
        except HotshotError as error:
            # What is wrong with something else is said of that.
            if flag == "--gif" or str(error).startswith(flag) or path not in str(error):
                raise
            raise _of_its_kind(error, f"{flag}: {error}") from error
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip"
        fetch(source, file, FetchLimits(allow_private=settings.allow_private_urls))
        try:
            yield open_clip(str(file))
        except HotshotError as error:
            if str(file) not in str(error):
                raise
            raise _of_its_kind(error, str(error).replace(str(file), source)) from error


def _of_its_kind(error: HotshotError, message: str) -> HotshotError:
    return UsageError(message) if isinstance(error, UsageError) else HotshotError(message)


def _read_source(source: str, settings: InferSettings) -> np.ndarray:
    with read_clip("--gif", source, settings) as clip:
        return read_key_frames(clip, settings.video_length, settings.video_duration)
