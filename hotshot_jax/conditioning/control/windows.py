"""How strongly each ControlNet acts in each call of the model."""

import dataclasses
import logging
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from hotshot_jax.conditioning.key_frames import Number, check_numbers, extremes
from hotshot_jax.errors import UsageError

DEFAULT_SCALE = 0.7
"""The strength of a ControlNet that nothing is said about."""

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class ControlWindow:
    """Strength of one ControlNet, and the part of the schedule in which it acts.

    Attributes:
        scale: what its residuals are multiplied by, which may differ by frame; 0 is the same as no
            ControlNet.
        start: fraction of the schedule before which it does nothing.
        end: fraction of the schedule after which it does nothing.
    """

    scale: Number = 1.0
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_numbers("controlnet_conditioning_scale", self.scale, None, 0.0)
        for name, value in (
            ("`control_guidance_start`", self.start),
            ("`control_guidance_end`", self.end),
        ):
            if not 0.0 <= value <= 1.0:
                raise UsageError(
                    f"{name} is {value:g}; expected a fraction of the run, from 0 to 1."
                )
        if self.start >= self.end:
            raise UsageError(
                f"`control_guidance_start` is {self.start:g} and `control_guidance_end` "
                f"{self.end:g}; the start must be smaller."
            )


def control_windows(
    controlnets: int,
    *,
    scales: Sequence[Number] = (),
    starts: Sequence[float] = (),
    ends: Sequence[float] = (),
    default_scale: float = DEFAULT_SCALE,
) -> tuple[ControlWindow, ...]:
    """Pairs the values of repeated settings with the ControlNets, in their order.

    Args:
        controlnets: number of ControlNets.
        scales: one for each ControlNet, or none given.
        starts: fractions of the steps, likewise.
        ends: fractions of the steps, likewise.
        default_scale: of every ControlNet, where no scale is given.

    Raises:
        UsageError: a setting is given another number of times, or a value is out of range.
    """
    columns = []
    for name, values, default in (
        ("`controlnet_conditioning_scale`", scales, default_scale),
        ("`control_guidance_start`", starts, 0.0),
        ("`control_guidance_end`", ends, 1.0),
    ):
        if len(values) not in (0, controlnets):
            raise UsageError(
                f"{name} has {len(values)} value{'s' * (len(values) != 1)} for {controlnets} "
                f"ControlNet{'s' * (controlnets != 1)}; give one for each, or none."
            )
        columns.append(values or [default] * controlnets)
    return tuple(ControlWindow(*values) for values in zip(*columns, strict=True))


def scale_table(
    windows: Sequence[ControlWindow], calls: int, run: range | None = None
) -> npt.NDArray[np.float32]:
    """The scale of each ControlNet in each call of the model.

    Call i of n is inside a window if start <= i / n and (i + 1) / n <= end. The fractions are of
    the whole schedule, as in diffusers, so a call keeps its strength where a run leaves out others.
    Rows differ in values only, so a compiled step serves all of them; a row of zeros needs no
    ControlNet at all.

    Args:
        windows: one for each ControlNet.
        calls: number of calls of the model in the whole schedule.
        run: positions in it of the calls that are made; None for all of them.

    Returns:
        float32 `[len(run), controlnets]`.
    """
    run = range(calls) if run is None else run
    table = np.zeros((len(run), len(windows)), np.float32)
    for column, window in enumerate(windows):
        for row, call in enumerate(run):
            if window.start <= call / calls and (call + 1) / calls <= window.end:
                # Where it differs by frame, each frame has a factor of its own.
                table[row, column] = 1.0 if isinstance(window.scale, Mapping) else window.scale
        if extremes(window.scale)[1] and not table[:, column].any():
            logger.warning(
                "ControlNet %d has no effect: of the %d calls of the model that are made, none "
                "lies between %g and %g of the schedule.",
                column + 1,
                len(run),
                window.start,
                window.end,
            )
    return table
