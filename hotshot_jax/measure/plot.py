"""Measures of clips as curves over their frames, drawn with Pillow."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from hotshot_jax.media.sheet import BACKGROUND, INK

_WIDTH: Final = 880
_PANEL: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 26, 24
_LINE: Final = 16
_TICKS: Final = 5
_GRID: Final = (222, 222, 222)
# Of Okabe and Ito: told apart by the colour-blind, too.
_COLOURS: Final = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
)  # fmt: skip
MOST_CURVES: Final = len(_COLOURS)
"""How many clips can be told apart."""

Curves = Mapping[str, Sequence[float]]


def draw_plot(panels: Mapping[str, Curves]) -> npt.NDArray[np.uint8]:
    """Draw panels under each other, each with the curves of the same clips.

    Args:
        panels: by title; a clip's values by its name, one for each frame, at most `MOST_CURVES`
            clips in all. What is infinite or not a number leaves a gap.

    Returns:
        uint8 [height, width, 3].

    Raises:
        ValueError: there are more clips than colours.
    """
    names = list(dict.fromkeys(name for curves in panels.values() for name in curves))
    if len(names) > MOST_CURVES:
        raise ValueError(f"{len(names)} clips; at most {MOST_CURVES} can be told apart in a plot")
    colours = dict(zip(names, _COLOURS, strict=False))
    height = len(panels) * _PANEL + len(names) * _LINE + 10
    image = Image.new("RGB", (_WIDTH, height), BACKGROUND)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(12)
    for number, (title, curves) in enumerate(panels.items()):
        draw.text((_LEFT, number * _PANEL + 6), title, INK, font)
        _panel(draw, font, number * _PANEL, curves, colours)
    for number, (name, colour) in enumerate(colours.items()):
        top = len(panels) * _PANEL + number * _LINE
        draw.line([(_LEFT, top + 8), (_LEFT + 24, top + 8)], colour, 3)
        draw.text((_LEFT + 32, top), name[-120:], INK, font)
    return np.asarray(image)


def _panel(
    draw: ImageDraw.ImageDraw,
    font: ImageFont.ImageFont | ImageFont.FreeTypeFont,
    top: int,
    curves: Curves,
    colours: Mapping[str, tuple[int, int, int]],
) -> None:
    values = [value for curve in curves.values() for value in curve if math.isfinite(value)]
    step = _round_step(max(values, default=0.0))
    highest = step * _TICKS
    longest = max((len(curve) for curve in curves.values()), default=1)
    bottom = top + _PANEL - _BOTTOM

    def place(index: float, value: float) -> tuple[float, float]:
        across = (_WIDTH - _LEFT - _RIGHT) * index / max(1, longest - 1)
        return _LEFT + across, bottom - (bottom - top - _TOP) * value / highest

    for tick in range(_TICKS + 1):
        y = place(0, tick * step)[1]
        draw.line([(_LEFT, y), (_WIDTH - _RIGHT, y)], _GRID)
        draw.text((_LEFT - 6, y), f"{tick * step:g}", INK, font, anchor="rm")
    every = max(1, math.ceil(longest / 16))
    for index in range(0, longest, every):
        draw.text((place(index, 0)[0], bottom + 4), str(index), INK, font, anchor="ma")
    for name, curve in curves.items():
        points = [(index, value) for index, value in enumerate(curve) if math.isfinite(value)]
        for (here, value), (there, after) in itertools.pairwise(points):
            if there == here + 1:
                draw.line([place(here, value), place(there, after)], colours[name], 2)
        for index, value in points:
            x, y = place(index, value)
            draw.ellipse([x - 2, y - 2, x + 2, y + 2], colours[name])


def _round_step(highest: float) -> float:
    """A step of 1, 2 or 5 times a power of ten, of which `_TICKS` reach the highest value."""
    if highest <= 0:
        return 1.0
    unit = 10.0 ** math.floor(math.log10(highest / _TICKS))
    return next(unit * each for each in (1, 2, 5, 10) if unit * each * _TICKS >= highest * 0.999999)
