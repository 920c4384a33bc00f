"""What may be asked of a pipeline."""

import dataclasses
import difflib
import math
from collections.abc import Mapping, Sequence
from typing import cast

from hotshot_jax.conditioning.key_frames import Number, check_numbers, extremes
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.step_plan import (
    ALL_STEPS,
    CacheInterval,
    GuidanceInterval,
    check_cache_interval,
    check_guidance_interval,
)
from hotshot_jax.sampling.windows import ContextConfig

MAX_SIDE = 4096
MAX_FRAMES = 1024

ALL_BLOCKS = "all"
"""Stands for every block of the UNet that is not named."""

MotionScale = Number | Mapping[str, Number]
"""One for the whole UNet, or by block: `down0`, `up2` and so on, and `ALL_BLOCKS`."""


@dataclasses.dataclass(frozen=True)
class Request:
    """The checked numbers of one generation.

    Attributes:
        height: of the video, pixels.
        width: of the video, pixels.
        video_length: number of frames.
        num_inference_steps: denoising steps.
        guidance_scale: weight of classifier-free guidance, which may differ by frame; 1 and below
            mean none.
        guidance_rescale: factor of the contrast correction.
        original_size: first two time ids.
        crops_coords_top_left: second two.
        target_size: last two.
        eta: noise of DDIM, from 0 to 1.
        clip_skip: text encoder layers left out before the last but one.
        denoising_end: fraction of the schedule after which to stop, or None.
        context: how the clip is divided into windows; None for not at all.
        motion_scale: factor of what the temporal transformers add.
        cache_interval: every how many steps the whole UNet is run, or in which.
        guidance_interval: fractions of the steps between which there is guidance.
    """

    height: int
    width: int
    video_length: int
    num_inference_steps: int
    guidance_scale: Number
    guidance_rescale: float
    original_size: tuple[float, float]
    crops_coords_top_left: tuple[float, float]
    target_size: tuple[float, float]
    eta: float
    clip_skip: int
    denoising_end: float | None
    context: ContextConfig | None = None
    motion_scale: MotionScale = 1.0
    cache_interval: CacheInterval = 1
    guidance_interval: GuidanceInterval = ALL_STEPS

    def latent_shape(self, factor: int, channels: int) -> tuple[int, int, int, int]:
        """Of a video's latents, `[frames, height / factor, width / factor, channels]`."""
        return self.video_length, self.height // factor, self.width // factor, channels

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional half."""
        return extremes(self.guidance_scale)[1] > 1.0

    @property
    def closed(self) -> bool:
        """Whether the last frame is followed by the first."""
        return self.context is not None and self.context.closed

    @property
    def frames_at_once(self) -> int:
        """How many frames the temporal layers see together, at most."""
        if self.context is None:
            return self.video_length
        return min(self.video_length, self.context.length)

    def motion_scales(self, blocks: Sequence[str]) -> list[Number]:
        """The motion scale of each block.

        Args:
            blocks: their names.
        """
        scales = scales_by_block(self.motion_scale)
        return [scales.get(block, scales.get(ALL_BLOCKS, 1.0)) for block in blocks]

    @property
    def time_ids(self) -> tuple[float, ...]:
        """The six numbers in the reference's order."""
        return (*self.original_size, *self.crops_coords_top_left, *self.target_size)

    def check(
        self,
        *,
        multiple: int,
        positions: int,
        encoder_depth: int,
        blocks: Sequence[str],
    ) -> None:
        """Checks everything that does not depend on the scheduler.

        Args:
            multiple: what height and width have to be multiples of.
            positions: frames that the temporal layers know.
            encoder_depth: layers of the shallower text encoder.
            blocks: names of the UNet's blocks that have temporal layers.

        Raises:
            UsageError: names the argument, what it is and what was expected.
        """
        for name, side in (("height", self.height), ("width", self.width)):
            if not _is_integer(side) or not multiple <= side <= MAX_SIDE or side % multiple:
                raise UsageError(
                    f"`{name}` is {side!r}; expected a multiple of {multiple} from "
                    f"{multiple} to {MAX_SIDE}."
                )
        if not _is_integer(self.video_length) or not 1 <= self.video_length <= MAX_FRAMES:
            raise UsageError(
                f"`video_length` is {self.video_length!r}; expected 1 to {MAX_FRAMES} frames."
            )
        if self.frames_at_once > positions:
            name = "video_length" if self.context is None else "context_length"
            raise UsageError(
                f"`{name}` is {self.frames_at_once}; the temporal layers know {positions} "
                f"positions, so that at most {positions} frames are seen at once."
            )
        if self.closed and self.video_length == 1:
            raise UsageError("`loop` needs at least 2 frames, and `video_length` is 1.")
        check_numbers("guidance_scale", self.guidance_scale, self.video_length, 0.0)
        low, high = extremes(self.guidance_scale)
        if low <= 1.0 < high:
            raise UsageError(
                f"`guidance_scale` goes from {low:g} to {high:g} over the frames; up to 1 there is "
                "no guidance, and there is either guidance for all frames or for none. Keep all "
                "values above 1."
            )
        self._check_motion_scale(blocks)
        # Whether that is a number of steps is for the scheduler to say.
        steps = self.num_inference_steps if _is_integer(self.num_inference_steps) else math.inf
        check_cache_interval(self.cache_interval, steps)
        check_guidance_interval(self.guidance_interval)
        self._check_number("guidance_rescale", self.guidance_rescale, 0.0, 1.0)
        self._check_number("eta", self.eta, 0.0, 1.0)
        if self.denoising_end is not None:
            self._check_number("denoising_end", self.denoising_end, 0.0, 1.0)
        if not _is_integer(self.clip_skip) or not 0 <= self.clip_skip < encoder_depth:
            raise UsageError(
                f"`clip_skip` is {self.clip_skip!r}; expected 0 to {encoder_depth - 1} layers."
            )
        for name in ("original_size", "crops_coords_top_left", "target_size"):
            for number in getattr(self, name):
                self._check_number(name, number, 0.0, 1e6)

    def _check_motion_scale(self, blocks: Sequence[str]) -> None:
        for block, number in scales_by_block(self.motion_scale).items():
            if block not in (*blocks, ALL_BLOCKS):
                near = difflib.get_close_matches(str(block)[:20], blocks, 1)
                hint = f" Did you mean {near[0]}?" if near else ""
                raise UsageError(
                    f"`motion_scale` names {block!r}; the UNet's blocks are {', '.join(blocks)}."
                    f"{hint}"
                )
            name = "motion_scale" if block == ALL_BLOCKS else f"motion_scale of {block}"
            check_numbers(name, number, self.video_length, 0.0)

    @staticmethod
    def _check_number(name: str, value: float, low: float, high: float) -> None:
        if (
            not isinstance(value, int | float)
            or not math.isfinite(value)
            or not low <= value <= high
        ):
            upper = "" if high == math.inf else f" to {high:g}"
            raise UsageError(f"`{name}` is {value!r}; expected a number from {low:g}{upper}.")


def block_names(levels: int) -> list[str]:
    """The UNet's blocks that have temporal layers, on the way down and then up.

    Args:
        levels: of the UNet.
    """
    return [f"{way}{level}" for way in ("down", "up") for level in range(levels)]


def scales_by_block(scale: MotionScale) -> Mapping[str, Number]:
    """What is said of each block; one for the whole UNet is said of all."""
    if isinstance(scale, Mapping) and any(isinstance(key, str) for key in scale):
        return cast(Mapping[str, Number], scale)
    return {ALL_BLOCKS: cast(Number, scale)}


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
