"""From pictures to what a run starts from and what it keeps."""

import dataclasses
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from hotshot_jax.conditioning.key_frames import check_keys
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines.latents import encode_frames
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.known import Start
from hotshot_jax.sampling.noise import NoiseSource
from hotshot_jax.sampling.request import Request


@dataclasses.dataclass(frozen=True)
class StartInput:
    """What a call is given to start from; see `HotshotXLPipeline.__call__`.

    Attributes:
        video: a clip, or its latents.
        strength: the part of the schedule that is run.
        mask: where it is made anew.
        known_frames: pictures, or their latents, by frame.
        repaint: how often each step is made where something is kept. What is made fits better to
            it with 2 than with 1, and takes twice as long.
        first_frame_attention: whether every frame also sees the first one's keys and values in the
            spatial self-attentions; in windows those of the window's first frame.
    """

    video: Any = None
    strength: float = 1.0
    mask: Any = None
    known_frames: Mapping[int, Any] = dataclasses.field(default_factory=dict)
    repaint: int = 1
    first_frame_attention: bool = False

    def check(self, frames: int, steps: int) -> None:
        """Checks what does not depend on the sizes.

        Args:
            frames: of the clip that is made.
            steps: of the whole schedule.

        Raises:
            UsageError: a value is out of range, or lacks another.
        """
        if not isinstance(self.strength, Real) or not 0.0 < float(self.strength) <= 1.0:
            raise UsageError(f"`strength` is {self.strength!r}; expected above 0, to 1.")
        if self.video is None:
            if self.mask is not None:
                raise UsageError("`mask` needs `video`: it says where that clip is made anew.")
            if self.strength != 1.0:
                raise UsageError("`strength` needs `video`: it says how much of that clip changes.")
        if not isinstance(self.repaint, int) or self.repaint < 1:
            raise UsageError(f"`repaint` is {self.repaint!r}; expected a whole number from 1.")
        if self.first_frame_attention and self.video is None and not self.known_frames:
            raise UsageError("`first_frame_attention` needs `video` or `known_frames`.")
        Start(self.video, self.strength).first_step(steps)
        if self.known_frames:
            check_keys("known_frames", self.known_frames, frames)


FROM_NOISE = StartInput()
"""Text to video."""


def make_start(
    runtime: Runtime,
    given: StartInput,
    request: Request,
    shape: tuple[int, ...],
    noise: NoiseSource,
    most_frames: int,
) -> Start | None:
    """What a run starts from; None for noise alone.

    Args:
        runtime: holds the VAE.
        given: what the call is given.
        request: numbers of the run.
        shape: of the run's latents, `[videos, frames, height / 8, width / 8, channels]`.
        noise: is drawn from for pictures, before anything else.
        most_frames: frames that a device encodes at once, at most.

    Raises:
        UsageError: something has another size than the clip, or see `StartInput.check`.
    """
    given.check(request.video_length, request.num_inference_steps)
    frames = sorted(given.known_frames)
    parts = []
    if given.video is not None:
        parts.append(_Part("video", np.asarray(given.video), range(shape[1])))
    if frames:
        pictures = [np.asarray(given.known_frames[frame]) for frame in frames]
        if len({each.shape for each in pictures}) > 1:
            raise UsageError("`known_frames` has pictures of different sizes; scale them to one.")
        parts.append(_Part("known_frames", np.stack(pictures), frames))
    mask = np.ones((1, *shape[1:-1], 1), np.float32)
    if given.mask is not None:
        mask = _mask(given.mask, shape, runtime.components.vae.config.scale_factor)
    mask[:, frames] = 0.0
    clean = _latents(runtime, parts, shape, noise, most_frames)
    start = Start(clean, given.strength, mask, given.repaint, given.first_frame_attention)
    if mask.min() < 1.0:
        return start
    # With a mask, a whole schedule begins with noise alone.
    whole = start.first_step(request.num_inference_steps) == 0
    if given.video is None or (whole and given.mask is not None):
        return start if given.first_frame_attention else None
    return dataclasses.replace(start, mask=None)


@dataclasses.dataclass(frozen=True)
class _Part:
    """Pictures or latents of some frames of a clip."""

    name: str
    given: np.ndarray
    frames: Sequence[int]


def _latents(
    runtime: Runtime,
    parts: Sequence[_Part],
    shape: tuple[int, ...],
    noise: NoiseSource,
    most_frames: int,
) -> np.ndarray:
    """Latents of what is given, where a later part stands for an earlier one.

    Returns:
        `[1 or videos, frames, height / 8, width / 8, 4]`, 0 in frames that nothing is given for.
    """
    factor = runtime.components.vae.config.scale_factor
    clean = np.zeros((1, *shape[1:]), np.float32)
    pictures: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    for part in parts:
        found = _checked(part, (shape[0], len(part.frames), *shape[2:]), factor)
        if found.dtype == np.uint8:
            drawn = noise.draw_pictures((shape[0], *found.shape[:1], *shape[2:]))
            pictures |= {
                frame: (found[place], drawn[:, place]) for place, frame in enumerate(part.frames)
            }
        else:
            for frame in part.frames:
                pictures.pop(frame, None)
            clean = _with_frames(clean, part.frames, found)
    if not pictures:
        return clean
    # Once for all: what a later part stands for is not encoded.
    encoded = encode_frames(
        runtime,
        np.stack([picture for picture, _ in pictures.values()]),
        np.stack([drawn for _, drawn in pictures.values()], 1),
        most_frames=most_frames,
    )
    return _with_frames(clean, [*pictures], encoded)


def _with_frames(clean: np.ndarray, frames: Sequence[int], found: np.ndarray) -> np.ndarray:
    """Latents with some frames replaced, with as many rows as either has."""
    rows = max(len(clean), len(found))
    clean = np.broadcast_to(clean, (rows, *clean.shape[1:])).copy()
    clean[:, list(frames)] = found
    return clean


def _checked(part: _Part, shape: tuple[int, ...], factor: int) -> np.ndarray:
    """Pictures uint8 `[frames, height, width, 3]`, or latents `[1 or videos, frames, ...]`."""
    given = part.given
    if given.dtype == np.uint8:
        expected = (shape[1], shape[2] * factor, shape[3] * factor, 3)
        if given.shape != expected:
            raise UsageError(f"`{part.name}` has the shape {given.shape}; expected {expected}.")
        return given
    given = given[None] if given.ndim == 4 else given
    if given.shape[1:] != shape[1:] or given.shape[0] not in (1, shape[0]):
        raise UsageError(
            f"`{part.name}` has the shape {given.shape}; expected uint8 pictures or latents "
            f"{(1, *shape[1:])}."
        )
    return given.astype(np.float32)


def _mask(given: Any, shape: tuple[int, ...], factor: int) -> np.ndarray:
    """A mask in the size of the latents, `[1, frames, height / 8, width / 8, 1]`."""
    mask = np.asarray(given, np.float32)
    mask = np.atleast_3d(mask) if mask.ndim < 2 else mask[None] if mask.ndim == 2 else mask
    _, frames, height, width, _ = shape
    if mask.shape[1:] == (height * factor, width * factor):
        # The pixel that diffusers takes: the first of each latent's.
        mask = mask[:, ::factor, ::factor]
    if len(mask) not in (1, frames) or mask.shape[1:] != (height, width):
        raise UsageError(
            f"`mask` has the shape {np.shape(given)}; expected {frames} frames or one of "
            f"{height * factor} x {width * factor} pixels, or of {height} x {width} latents."
        )
    if not np.isfinite(mask).all() or mask.min() < 0 or mask.max() > 1:
        raise UsageError("`mask` has values outside of 0 to 1, where 1 is made and 0 is kept.")
    return np.broadcast_to(mask, (frames, height, width))[None, ..., None].copy()
