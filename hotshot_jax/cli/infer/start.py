"""What the flags of a clip's beginning ask for: a clip to start from, known frames, a mask."""

import dataclasses
import logging
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from hotshot_jax.cli.by_frame import text_at_frame
from hotshot_jax.cli.infer.control import read_clip
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.key_frames import check_keys
from hotshot_jax.errors import UsageError
from hotshot_jax.media.reading.clip import Clip
from hotshot_jax.media.reading.key_frames import key_frame_indices
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.request import MAX_FRAMES, MAX_SIDE

logger = logging.getLogger(__name__)

# What diffusers' video to video takes; with a mask, what is made is made from noise.
_STRENGTH = 0.8
_LATENT_PIXELS = 8


@dataclasses.dataclass(frozen=True)
class StartPlan:
    """The checked flags of a clip's beginning, with what they name, in its own size.

    Attributes:
        video: uint8 `[frames, height, width, 3]`.
        strength: the part of the schedule that is run.
        mask: uint8 `[frames, height, width]`, 255 where the clip is made anew.
        known: pictures by frame, uint8 `[height, width, 3]`.
    """

    video: np.ndarray | None = None
    strength: float = 1.0
    mask: np.ndarray | None = None
    known: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)


def sized_by_video(settings: InferSettings, named: Collection[str]) -> InferSettings:
    """The settings with length and size of `--video`, where they are not named themselves.

    Args:
        settings: of the run.
        named: the settings that stand on the command line or in its file.

    Raises:
        UsageError: there is no such clip.
        HotshotError: it cannot be read.
    """
    if settings.video is None:
        return settings
    changes: dict[str, Any] = {}
    with read_clip("--video", settings.video, settings) as clip:
        if "video_length" not in named and not _is_still(clip):
            changes["video_length"] = min(len(clip.durations_ms), MAX_FRAMES)
            if "video_duration" not in named:
                timed = all(clip.durations_ms)
                # Nothing is what its length decides.
                changes["video_duration"] = round(sum(clip.durations_ms)) if timed else None
        scale = min(1.0, MAX_SIDE / max(clip.width, clip.height))
        for name, side in (("width", clip.width), ("height", clip.height)):
            if not {name, "aspect_ratio"} & set(named):
                changes[name] = max(int(side * scale) // _LATENT_PIXELS, 1) * _LATENT_PIXELS
    return dataclasses.replace(settings, **changes)


def plan_start(settings: InferSettings) -> StartPlan:
    """Checks the flags and reads what they name, before any model is loaded.

    Raises:
        UsageError: flags contradict each other, or a value is out of range; something named does
            not exist, is no picture, or has other frames than it should.
        HotshotError: something cannot be read.
    """
    known = _known_pictures(settings)
    if settings.video is None:
        for flag in ("mask", "strength"):
            if getattr(settings, flag) is not None:
                raise UsageError(f"--{flag} needs --video, the clip that it is about.")
        return StartPlan(known=known)
    usual = _STRENGTH if settings.mask is None else 1.0
    strength = usual if settings.strength is None else settings.strength
    StartInput(True, strength).check(settings.video_length, settings.steps)
    with read_clip("--video", settings.video, settings) as clip:
        indices = list(range(settings.video_length))
        if _is_still(clip):
            picture = clip.frames([0])
            video, count = (
                np.broadcast_to(picture, (len(indices), *picture.shape[1:])),
                len(indices),
            )
        else:
            try:
                indices = key_frame_indices(
                    clip.durations_ms, settings.video_length, settings.video_duration
                )
            except UsageError as error:
                raise UsageError(f"--video {settings.video}: {error}") from error
            video, count = clip.frames(indices), len(clip.durations_ms)
    mask = None
    if settings.mask is not None:
        with read_clip("--mask", settings.mask, settings) as clip:
            mask = _mask(settings.mask, clip, count, indices)
        if mask.min() == 255:
            logger.warning("--mask is white everywhere: all of the clip is made anew.")
    return StartPlan(video, strength, mask, known)


def start_input(plan: StartPlan, settings: InferSettings) -> StartInput:
    """What is asked for, in the size of the clip that is made; scaling is told.

    Args:
        plan: what `plan_start` gave.
        settings: with width and height.
    """
    width, height = settings.width, settings.height
    assert width is not None and height is not None

    def scaled(flag: str, pictures: np.ndarray) -> np.ndarray:
        old_height, old_width = pictures.shape[1:3]
        if (old_width, old_height) != (width, height):
            logger.warning(
                "%s of %d x %d pixels is scaled and cropped to %d x %d.",
                flag,
                old_width,
                old_height,
                width,
                height,
            )
        if pictures.strides[0] == 0:
            # A picture that is held still is scaled once.
            one = scale_aspect_fill(pictures[0], width, height)
            return np.broadcast_to(one, (len(pictures), *one.shape))
        return np.stack([scale_aspect_fill(each, width, height) for each in pictures])

    mask = None
    if plan.mask is not None:
        mask = scaled("--mask", plan.mask).astype(np.float32) / 255
    return StartInput(
        None if plan.video is None else scaled("--video", plan.video),
        plan.strength,
        mask,
        {
            frame: scaled(f"The picture of frame {frame}", picture[None])[0]
            for frame, picture in plan.known.items()
        },
    )


def _known_pictures(settings: InferSettings) -> dict[int, np.ndarray]:
    """Pictures by frame, of all flags that give any."""
    ends = (
        ("--first_frame", 0, settings.first_frame),
        ("--last_frame", settings.video_length - 1, settings.last_frame),
    )
    given = [(flag, frame, path) for flag, frame, path in ends if path is not None]
    given += [("--frame_at", *text_at_frame(argument)) for argument in settings.frame_at]
    if given:
        check_keys("frame_at", [frame for _, frame, _ in given], settings.video_length)
    known: dict[int, np.ndarray] = {}
    for flag, frame, path in given:
        if frame in known:
            raise UsageError(f"{flag} gives frame {frame} a second picture; give it one.")
        with read_clip(flag, path, settings) as clip:
            if not _is_still(clip):
                raise UsageError(f"{flag} {os.fspath(path)} is a clip; expected a picture.")
            known[frame] = clip.frames([0])[0]
    return known


def _mask(name: str, clip: Clip, count: int, indices: list[int]) -> np.ndarray:
    still = _is_still(clip)
    if not still and len(clip.durations_ms) != count:
        raise UsageError(
            f"--mask {name} has {len(clip.durations_ms)} frames, and --video has {count}; expected "
            "as many, or one picture for all."
        )
    levels = np.stack(
        [np.round(each.mean(axis=-1)) for each in clip.frames([0] if still else indices)]
    )
    gray = levels.astype(np.uint8)
    return np.broadcast_to(gray, (len(indices), *gray.shape[1:])) if still else gray


def _is_still(clip: Clip) -> bool:
    return clip.is_picture or len(clip.durations_ms) == 1
