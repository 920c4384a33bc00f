"""What the flags of a clip's beginning ask for: a clip to start from, known frames, a mask."""

import contextlib
import dataclasses
import logging
import os
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from hotshot_jax.cli.by_frame import text_at_frame
from hotshot_jax.cli.infer.control import read_clip
from hotshot_jax.cli.infer.settings import InferSettings
from hotshot_jax.conditioning.key_frames import check_keys
from hotshot_jax.errors import UsageError
from hotshot_jax.jobs.extension import Extension
from hotshot_jax.media.reading.clip import Clip
from hotshot_jax.media.reading.key_frames import key_frame_indices
from hotshot_jax.media.resize import scale_aspect_fill
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.pipelines.in_betweens import (
    REPAINT as BETWEEN_REPAINT,
    STRENGTH as BETWEEN_STRENGTH,
    length_with_between,
    start_between,
)
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.request import MAX_FRAMES, MAX_SIDE
from hotshot_jax.sampling.windows import LONG_CLIP_LENGTH

logger = logging.getLogger(__name__)

# What diffusers' video to video takes; with a mask, what is made is made from noise.
_STRENGTH = 0.8
_LATENT_PIXELS = 8
# By measurement (docs/tiny_model.md).
_FOR_SMOOTH = (("repaint", BETWEEN_REPAINT), ("guidance_scale", 2.0))
_FOR_EXTEND = (("repaint", 2), ("context_fuse", "first"))


@dataclasses.dataclass(frozen=True)
class StartPlan:
    """The checked flags of a clip's beginning, with what they name, in its own size.

    Attributes:
        video: uint8 `[frames, height, width, 3]`.
        strength: the part of the schedule that is run.
        mask: uint8 `[frames, height, width]`, 255 where the clip is made anew.
        known: pictures by frame, uint8 `[height, width, 3]`.
        smoothed: frames of a clip between which others are made, uint8 like `video`.
        extension: what goes on, in the size of the clip that is made.
    """

    video: np.ndarray | None = None
    strength: float = 1.0
    mask: np.ndarray | None = None
    known: Mapping[int, np.ndarray] = dataclasses.field(default_factory=dict)
    smoothed: np.ndarray | None = None
    extension: Extension | None = None


@contextlib.contextmanager
def opened_source(settings: InferSettings) -> Iterator[Clip | None]:
    """The clip that the run starts from or goes on from, to be read while the context lasts.

    Raises:
        UsageError: flags contradict each other; there is no such clip.
        HotshotError: it cannot be read.
    """
    if settings.video is not None and settings.extend is not None:
        raise UsageError(
            "--video makes a clip of another, and --extend goes on from one; give one of them."
        )
    if settings.smooth is not None:
        if settings.video is None:
            raise UsageError("--smooth needs --video, the clip between whose frames it makes some.")
        if settings.mask is not None:
            raise UsageError("--smooth keeps all of --video, and --mask changes it.")
        if settings.smooth < 1:
            raise UsageError(f"--smooth is {settings.smooth}; expected 1 or more frames.")
    for flag in ("video", "extend"):
        if getattr(settings, flag) is not None:
            with read_clip(f"--{flag}", getattr(settings, flag), settings) as clip:
                yield clip
            return
    yield None


def with_source(
    settings: InferSettings, source: Clip | None, named: Collection[str]
) -> InferSettings:
    """The settings with what follows from the clip, where it is not named itself.

    Its length, time and size, and what suits frames that are made to fit to known ones.

    Args:
        settings: of the run.
        source: from `opened_source`.
        named: the settings that stand on the command line or in its file.

    Raises:
        UsageError: the clip is longer than a run may be, or a length is named that it cannot have.
    """
    if source is None:
        return settings
    count = len(source.durations_ms)
    changes: dict[str, Any] = {}
    frame_ms: float | None = None
    frames_are_kept = settings.smooth is not None or settings.extend is not None
    if all(source.durations_ms):
        frame_ms = sum(source.durations_ms) / count
    elif frames_are_kept:
        frame_ms = InferSettings(video_length=count).video_duration / count
    length = settings.video_length
    if settings.smooth is not None:
        if count < 2:
            raise UsageError(f"--smooth needs a clip, and --video {settings.video} is one picture.")
        length = length_with_between(count, settings.smooth, loop=settings.loop)
        if "video_length" in named and settings.video_length != length:
            raise UsageError(
                f"--video_length is {settings.video_length}, but with --smooth {settings.smooth} "
                f"a clip of {count} frames has {length}; leave it out."
            )
        frame_ms = None if frame_ms is None else frame_ms / (settings.smooth + 1)
    elif settings.video is not None and "video_length" not in named and not _is_still(source):
        length = min(count, MAX_FRAMES)
    if settings.extend is not None and count > MAX_FRAMES:
        raise UsageError(
            f"--extend {settings.extend} has {count} frames; give its last part alone, of up to "
            f"{MAX_FRAMES}."
        )
    lasts = not _is_still(source) and "video_duration" not in named
    # Of a part of a clip, chosen by its length, the time is not known.
    if lasts and (frames_are_kept or "video_length" not in named):
        # Nothing is what its length decides.
        changes["video_duration"] = None if frame_ms is None else round(frame_ms * length)
    for name, value in _FOR_SMOOTH if settings.smooth else _FOR_EXTEND if settings.extend else ():
        if name not in named:
            changes[name] = value
    scale = min(1.0, MAX_SIDE / max(source.width, source.height))
    for name, side in (("width", source.width), ("height", source.height)):
        if not {name, "aspect_ratio"} & set(named):
            changes[name] = max(int(side * scale) // _LATENT_PIXELS, 1) * _LATENT_PIXELS
    return dataclasses.replace(settings, video_length=length, **changes)


def plan_start(settings: InferSettings, source: Clip | None) -> StartPlan:
    """Checks the flags and reads what they name, before any model is loaded.

    Args:
        settings: of the run, with what `with_source` adds.
        source: from `opened_source`.

    Raises:
        UsageError: flags contradict each other, or a value is out of range; something named does
            not exist, is no picture, or has other frames than it should.
        HotshotError: something cannot be read.
    """
    known = _known_pictures(settings)
    if settings.repaint < 1:
        raise UsageError(f"--repaint is {settings.repaint}; expected 1 or more.")
    if settings.video is None or source is None:
        for flag in ("mask", "strength"):
            if getattr(settings, flag) is not None:
                raise UsageError(f"--{flag} needs --video, the clip that it is about.")
        extension = None if source is None else _extension(settings, source)
        return StartPlan(known=known, extension=extension)
    if settings.smooth is not None:
        twice = next((frame for frame in known if frame % (settings.smooth + 1) == 0), None)
        if twice is not None:
            raise UsageError(f"Frame {twice} is one of --video, which --smooth keeps.")
        frames = source.frames(range(len(source.durations_ms)))
        strength = BETWEEN_STRENGTH if settings.strength is None else settings.strength
        StartInput(True, strength).check(settings.video_length, settings.steps)
        return StartPlan(None, strength, None, known, frames)
    usual = _STRENGTH if settings.mask is None else 1.0
    strength = usual if settings.strength is None else settings.strength
    StartInput(True, strength).check(settings.video_length, settings.steps)
    indices, count = list(range(settings.video_length)), len(source.durations_ms)
    if _is_still(source):
        picture = source.frames([0])
        video, count = np.broadcast_to(picture, (len(indices), *picture.shape[1:])), len(indices)
    else:
        try:
            indices = key_frame_indices(
                source.durations_ms, settings.video_length, settings.video_duration
            )
        except UsageError as error:
            raise UsageError(f"--video {settings.video}: {error}") from error
        video = source.frames(indices)
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
    assert settings.width is not None and settings.height is not None
    size = (settings.width, settings.height)
    mask = None
    if plan.mask is not None:
        mask = _scaled("--mask", plan.mask, *size).astype(np.float32) / 255
    known = {
        frame: _scaled(f"The picture of frame {frame}", picture[None], *size)[0]
        for frame, picture in plan.known.items()
    }
    how: dict[str, Any] = {
        "repaint": settings.repaint,
        "first_frame_attention": settings.first_frame_attention,
    }
    if plan.smoothed is not None:
        assert settings.smooth is not None
        between = start_between(
            _scaled("--video", plan.smoothed, *size),
            settings.smooth,
            loop=settings.loop,
            strength=plan.strength,
        )
        return dataclasses.replace(between, known_frames={**between.known_frames, **known}, **how)
    video = None if plan.video is None else _scaled("--video", plan.video, *size)
    start = StartInput(video, plan.strength, mask, known, **how)
    return start if plan.extension is None else plan.extension.start(start)


def _scaled(flag: str, pictures: np.ndarray, width: int, height: int) -> np.ndarray:
    _tell_of_scaling(flag, pictures.shape[2], pictures.shape[1], width, height)
    if pictures.strides[0] == 0:
        # A picture that is held still is scaled once.
        one = scale_aspect_fill(pictures[0], width, height)
        return np.broadcast_to(one, (len(pictures), *one.shape))
    return np.stack([scale_aspect_fill(each, width, height) for each in pictures])


def _tell_of_scaling(flag: str, old_width: int, old_height: int, width: int, height: int) -> None:
    if (old_width, old_height) != (width, height):
        logger.warning(
            "%s of %d x %d pixels is scaled and cropped to %d x %d.",
            flag,
            old_width,
            old_height,
            width,
            height,
        )


def _extension(settings: InferSettings, source: Clip) -> Extension:
    assert settings.width is not None and settings.height is not None
    size = (settings.width, settings.height)
    _tell_of_scaling("--extend", source.width, source.height, *size)
    frames = StoredFrames(size[1], size[0])
    for frame in source.stream():
        frames.append(scale_aspect_fill(frame, *size)[None])
    window = settings.context_length or LONG_CLIP_LENGTH
    return Extension(frames, settings.video_length, window, settings.loop)


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
