"""What may be asked of a pipeline."""

import dataclasses
import math

from hotshot_jax.errors import UsageError

MAX_SIDE = 4096


@dataclasses.dataclass(frozen=True)
class Request:
    """The checked numbers of one generation.

    Attributes:
        height: of the video, pixels.
        width: of the video, pixels.
        video_length: number of frames.
        num_inference_steps: denoising steps.
        guidance_scale: weight of classifier-free guidance; 1 and below mean none.
        guidance_rescale: factor of the contrast correction.
        original_size: first two time ids.
        crops_coords_top_left: second two.
        target_size: last two.
        eta: noise of DDIM, from 0 to 1.
        clip_skip: text encoder layers left out before the last but one.
        denoising_end: fraction of the schedule after which to stop, or None.
    """

    height: int
    width: int
    video_length: int
    num_inference_steps: int
    guidance_scale: float
    guidance_rescale: float
    original_size: tuple[float, float]
    crops_coords_top_left: tuple[float, float]
    target_size: tuple[float, float]
    eta: float
    clip_skip: int
    denoising_end: float | None

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional half."""
        return self.guidance_scale > 1.0

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
    ) -> None:
        """Checks everything that does not depend on the scheduler.

        Args:
            multiple: what height and width have to be multiples of.
            positions: frames that the temporal layers know.
            encoder_depth: layers of the shallower text encoder.

        Raises:
            UsageError: names the argument, what it is and what was expected.
        """
        for name, side in (("height", self.height), ("width", self.width)):
            if not _is_integer(side) or not multiple <= side <= MAX_SIDE or side % multiple:
                raise UsageError(
                    f"`{name}` is {side!r}; expected a multiple of {multiple} from "
                    f"{multiple} to {MAX_SIDE}."
                )
        if not _is_integer(self.video_length) or not 1 <= self.video_length <= positions:
            raise UsageError(
                f"`video_length` is {self.video_length!r}; expected 1 to {positions} "
                "frames (the temporal layers know no more positions)."
            )
        self._check_number("guidance_scale", self.guidance_scale, 0.0, math.inf)
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

    @staticmethod
    def _check_number(name: str, value: float, low: float, high: float) -> None:
        if (
            not isinstance(value, int | float)
            or not math.isfinite(value)
            or not low <= value <= high
        ):
            upper = "" if high == math.inf else f" to {high:g}"
            raise UsageError(f"`{name}` is {value!r}; expected a number from {low:g}{upper}.")


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
