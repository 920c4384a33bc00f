"""Procedural clips of one coloured shape in motion, with a prompt that says all of it.

A prompt reads `a COLOUR SHAPE MOTION on a BACKGROUND background`. Every clip is a function of its
prompt and a seed alone. Size, start, speed and shade vary, so no two seeds of a prompt give equal
clips; what the prompt names never does.

Coverage is computed from signed distances (Quilez, "2D distance functions"), which makes the edges
anti-aliased at any resolution without supersampling.
"""

import itertools
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hotshot_jax.errors import UsageError

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (222, 40, 44),
    "green": (44, 176, 60),
    "blue": (44, 84, 226),
    "yellow": (248, 222, 48),
    "orange": (246, 136, 20),
    "purple": (142, 50, 190),
    "pink": (250, 140, 190),
    "white": (244, 244, 244),
}
NEW_COLOURS: dict[str, tuple[int, int, int]] = {"cyan": (70, 216, 232)}
"""Colours of which no prompt of the data set speaks, to be taught to a trained model afterwards."""

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "cross")
MOTIONS: tuple[str, ...] = (
    "moving left",
    "moving right",
    "moving up",
    "moving down",
    "growing",
    "shrinking",
    "spinning",
    "standing still",
)
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "black": (12, 12, 14),
    "gray": (128, 128, 128),
    "brown": (106, 66, 36),
    "teal": (14, 122, 126),
}
MOMENTS = {"any": 1, "late": 2, "last": 8}
"""From where in a clip a single frame is taken: the latest of so many random moments.

In late frames a shape that moves left is on the left more often than not, and one that grows is
large. So the words of motion say something about a still picture, and the layers that see the
prompt learn to pass them on; of frames from anywhere those words say nothing at all.
"""
SAYS = ("all", "colours")
"""What the prompts of clips say: everything, or colours and nothing else."""
PAINTS = ("named", "any")
"""In which colour shapes are drawn: the one that the prompt names, or for half of the clips any at
all. The latter is for models that read no prompts, such as a VAE."""
SPLITS = ("train", "held_out", *(f"{c}{end}" for c in NEW_COLOURS for end in ("", "_held_out")))
"""Parts of the prompts; see `split_prompts`."""
DEFAULT_FRAMES = 8
DEFAULT_SIZE = 128

# Ranges of what varies. They lie inside the promises of the data set (a fifth of the frame,
# 1.5-fold, 60 degrees) by a margin, so that a lossy codec cannot push a clip across them.
_STEADY_RADIUS = (0.16, 0.23)
_SMALL_RADIUS = (0.12, 0.155)
_TRAVEL = (0.26, 0.5)
_GROWTH = (1.75, 2.3)
_TURN_DEGREES = (75.0, 150.0)
_SHADE = (0.93, 1.03)
_TINT = 4.0
# The farthest point of any shape from its centre, in units of the radius; a spinning shape needs it
# in every direction.
_REACH = 1.26
_MARGIN = 0.015

Float = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ShapePrompt:
    """The four things that a prompt of this data set says."""

    colour: str
    shape: str
    motion: str
    background: str

    def __str__(self) -> str:
        return f"a {self.colour} {self.shape} {self.motion} on a {self.background} background"

    @property
    def brief(self) -> str:
        """Colours alone: shape and motion are left to something else, such as a ControlNet."""
        return f"a {self.colour} shape on a {self.background} background"


def _prompts(colours: Iterable[str]) -> dict[str, ShapePrompt]:
    prompts = (
        ShapePrompt(colour, shape, motion, background)
        for colour, shape, motion, background in itertools.product(
            colours, SHAPES, MOTIONS, BACKGROUNDS
        )
        if not (shape == "circle" and motion == "spinning")
    )
    return {str(prompt): prompt for prompt in prompts}


_ALL_COLOURS = {**COLOURS, **NEW_COLOURS}
_KNOWN = _prompts(COLOURS)
_BY_TEXT = _prompts(_ALL_COLOURS)


def all_prompts() -> list[str]:
    """All 1248 prompts: colours outermost, then shapes, motions and backgrounds."""
    return list(_KNOWN)


def parse_prompt(prompt: str) -> ShapePrompt:
    """The parts of a prompt of this data set.

    Raises:
        UsageError: the text is not one of `all_prompts()`, nor of a new colour.
    """
    found = _BY_TEXT.get(" ".join(prompt.split()))
    if found is None:
        raise UsageError(
            f"not a prompt of the shapes data set: {prompt!r}\n"
            "It reads 'a COLOUR SHAPE MOTION on a BACKGROUND background', for instance "
            "'a red circle moving right on a black background'; a circle never spins."
        )
    return found


def is_held_out(prompt: str) -> bool:
    """Whether no stage of training may see the prompt.

    These are the prompts whose colour, shape and motion indices add up to a multiple of five: each
    colour, shape, motion and background is trained on, and so is each pair of them.
    """
    parts = parse_prompt(prompt)
    total = (
        list(_ALL_COLOURS).index(parts.colour)
        + SHAPES.index(parts.shape)
        + MOTIONS.index(parts.motion)
    )
    return total % 5 == 0


def split_prompts(split: str) -> list[str]:
    """The prompts of `train`, `held_out` or `all`, in the order of `all_prompts()`.

    The name of a new colour, such as `cyan`, gives the prompts of that colour that the rule does
    not hold out; `cyan_held_out` gives the others.

    Raises:
        UsageError: the split is unknown.
    """
    if split == "all":
        return all_prompts()
    if split not in SPLITS:
        raise UsageError(f"unknown split {split!r}: expected {', '.join(SPLITS)} or all")
    colour = split.removesuffix("_held_out")
    prompts = _prompts([colour]) if colour in NEW_COLOURS else _KNOWN
    return [p for p in prompts if is_held_out(p) == split.endswith("held_out")]


@dataclass(frozen=True)
class Trajectory:
    """Where the shape is in each frame.

    Attributes:
        centre_x: [frames], in units of the width.
        centre_y: [frames], in units of the height, downwards.
        radius: [frames], in units of the shorter side. A circle's radius; the others are of
            about the same area.
        angle: [frames], radians, clockwise as seen.
    """

    centre_x: npt.NDArray[np.float64]
    centre_y: npt.NDArray[np.float64]
    radius: npt.NDArray[np.float64]
    angle: npt.NDArray[np.float64]


def _trajectory(
    motion: str, rng: np.random.Generator, frames: int, width: int, height: int, moment: str
) -> Trajectory:
    time = np.linspace(0.0, 1.0, frames) if frames > 1 else rng.uniform(0.0, 1.0, 1)
    if frames == 1:
        # The latest of n moments uniform in [0, 1] is distributed like one to the power of 1/n.
        time = time ** (1 / MOMENTS[moment])
    shorter = min(width, height)
    radius = np.full(frames, rng.uniform(*_STEADY_RADIUS))
    if motion in ("growing", "shrinking"):
        small = rng.uniform(*_SMALL_RADIUS)
        large = small * rng.uniform(*_GROWTH)
        start, end = (small, large) if motion == "growing" else (large, small)
        radius = start + (end - start) * time

    angle = np.zeros(frames)
    if motion == "spinning":
        turn = np.deg2rad(rng.uniform(*_TURN_DEGREES)) * rng.choice((-1.0, 1.0))
        angle = rng.uniform(0.0, 2.0 * np.pi) + turn * time

    centres = []
    for side, names in (
        (width, ("moving left", "moving right")),
        (height, ("moving up", "moving down")),
    ):
        low = (radius.max() * _REACH + _MARGIN) * shorter / side
        high = 1.0 - low
        if motion in names:
            travel = rng.uniform(_TRAVEL[0], min(_TRAVEL[1], high - low))
            start = rng.uniform(low, high - travel)
            centres.append(start + travel * (time if motion == names[1] else 1 - time))
        else:
            centres.append(np.full(frames, rng.uniform(low, high)))
    return Trajectory(centres[0], centres[1], radius, angle)


def _distance(shape: str, x: Float, y: Float) -> Float:
    """Signed distance to the outline of a shape of radius 1, negative inside; y points down."""
    if shape == "circle":
        return np.sqrt(x * x + y * y) - np.float32(1.0)
    if shape == "square":
        return np.maximum(np.abs(x), np.abs(y)) - np.float32(0.886)
    if shape == "triangle":
        inner = np.float32(0.63)
        slope = np.float32(np.sqrt(3.0) / 2.0)
        return np.maximum(y, slope * np.abs(x) - np.float32(0.5) * y) - inner
    if shape == "cross":
        ax, ay = np.abs(x), np.abs(y)
        long, thick = np.float32(1.06), np.float32(0.36)
        # Along either bar the farther coordinate is bounded by the length, the nearer by the
        # thickness, so that both bars are one comparison.
        return np.maximum(np.maximum(ax, ay) - long, np.minimum(ax, ay) - thick)
    # The star: fold the plane into the wedge between a tip and the next notch, then measure to the
    # one edge in it.
    outer, notch, wedge = 1.26, 0.60, np.pi / 5.0
    radius = np.sqrt(x * x + y * y)
    from_tip = np.abs(np.mod(np.arctan2(x, -y) + np.float32(wedge), 2 * wedge) - np.float32(wedge))
    edge = np.array([notch * np.cos(wedge) - outer, notch * np.sin(wedge)])
    normal = np.array([edge[1], -edge[0]]) / np.hypot(*edge)
    nx, ny = normal.astype(np.float32)
    return nx * (radius * np.cos(from_tip) - np.float32(outer)) + ny * radius * np.sin(from_tip)


def _coverage(shape: str, path: Trajectory, width: int, height: int) -> Float:
    """How much of each pixel the shape covers, float32 [frames, height, width] in [0, 1]."""
    frames = len(path.radius)
    coverage = np.zeros((frames, height, width), np.float32)
    for index in range(frames):
        radius = path.radius[index] * min(width, height)
        cx, cy = path.centre_x[index] * width, path.centre_y[index] * height
        reach = radius * (_REACH + 0.02) + 1.0
        left, right = max(0, int(cx - reach)), min(width, int(cx + reach) + 1)
        top, bottom = max(0, int(cy - reach)), min(height, int(cy + reach) + 1)
        x = ((np.arange(left, right) + 0.5 - cx) / radius)[None, :]
        y = ((np.arange(top, bottom) + 0.5 - cy) / radius)[:, None]
        cos, sin = np.cos(path.angle[index]), np.sin(path.angle[index])
        turned_x = (cos * x + sin * y).astype(np.float32)
        turned_y = (cos * y - sin * x).astype(np.float32)
        distance = _distance(shape, turned_x, turned_y) * np.float32(radius)
        coverage[index, top:bottom, left:right] = np.clip(np.float32(0.5) - distance, 0.0, 1.0)
    return coverage


def _shaded(colour: tuple[int, int, int], rng: np.random.Generator) -> Float:
    shaded = np.array(colour) * rng.uniform(*_SHADE) + rng.uniform(-_TINT, _TINT, 3)
    return np.clip(shaded, 0, 255).astype(np.float32)


def render(
    prompt: str,
    seed: int | Sequence[int],
    size: int | tuple[int, int] = DEFAULT_SIZE,
    frames: int = DEFAULT_FRAMES,
    moment: str = "any",
    paint: str = "named",
) -> npt.NDArray[np.uint8]:
    """One clip of a prompt, the same for the same arguments.

    Args:
        prompt: one of `all_prompts()`.
        seed: a non-negative integer or several (such as a seed and an index).
        size: the side of a square clip, or (width, height), in pixels.
        frames: how many, spread evenly over the clip's one second; 1 gives a random moment of it.
        moment: of a single frame, one of `MOMENTS`.
        paint: one of `PAINTS`.

    Returns:
        uint8 RGB [frames, height, width, 3].

    Raises:
        UsageError: not a prompt of this data set, a size or frame count below 1, or an unknown
            moment or paint.
    """
    if paint not in PAINTS:
        raise UsageError(f"unknown paint {paint!r}: expected {', '.join(PAINTS)}")
    if moment not in MOMENTS:
        raise UsageError(f"unknown moment {moment!r}: expected {', '.join(MOMENTS)}")
    parts = parse_prompt(prompt)
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height, frames) < 1:
        raise UsageError(f"a clip of {frames} frames of {width}x{height} pixels cannot be drawn")
    seeds = [seed] if isinstance(seed, int) else list(seed)
    rng = np.random.default_rng([*seeds, zlib.crc32(str(parts).encode())])
    path = _trajectory(parts.motion, rng, frames, width, height, moment)
    background = _shaded(BACKGROUNDS[parts.background], rng)
    colour = _shaded(_ALL_COLOURS[parts.colour], rng)
    if paint == "any" and rng.uniform() < 0.5:
        colour = rng.uniform(0, 255, 3).astype(np.float32)
    coverage = _coverage(parts.shape, path, width, height)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for channel in range(3):
        step = colour[channel] - background[channel]
        clip[..., channel] = coverage * step + (background[channel] + np.float32(0.5))
    return clip


@dataclass(frozen=True)
class ShapesSource:
    """Random access to an endless-looking but finite row of clips, for `grain` or a plain loop.

    Prompts come in rounds, each a fresh permutation of the split, so that after any whole number of
    rounds all prompts were seen equally often, those of spinning shapes `spins` times as often.

    Attributes:
        length: number of clips.
        seed: another seed gives other clips in another order.
        size: side, or (width, height), in pixels.
        frames: frames a clip; 1 gives a random moment of each.
        split: whose prompts; see `split_prompts`.
        moment: of a single frame, one of `MOMENTS`.
        says: what the prompts tell, one of `SAYS`.
        paint: the colours of shapes, one of `PAINTS`.
        spins: how often a prompt of a spinning shape comes in a round. Shapes at an angle are a
            tenth of the data, and the hardest of them to draw.
    """

    length: int
    seed: int = 0
    size: int | tuple[int, int] = DEFAULT_SIZE
    frames: int = DEFAULT_FRAMES
    split: str = "train"
    moment: str = "any"
    says: str = "all"
    paint: str = "named"
    spins: int = 1

    def __post_init__(self) -> None:
        prompts = split_prompts(self.split)
        spinning = [prompt for prompt in prompts if parse_prompt(prompt).motion == "spinning"]
        object.__setattr__(self, "_prompts", prompts + spinning * (self.spins - 1))

    def __len__(self) -> int:
        return self.length

    def prompt(self, index: int) -> str:
        """All that there is to say of the clip at an index."""
        if not 0 <= index < self.length:
            raise IndexError(f"clip {index} of {self.length}")
        prompts: list[str] = getattr(self, "_prompts")  # noqa: B009 - set on a frozen instance
        round_index, position = divmod(index, len(prompts))
        order = np.random.default_rng([self.seed, round_index, 1]).permutation(len(prompts))
        return prompts[order[position]]

    def __getitem__(self, index: int) -> dict[str, Any]:
        """`{"frames": uint8 [frames, height, width, 3], "prompt": str}`."""
        prompt = self.prompt(index)
        seed = (self.seed, index)
        return {
            "frames": render(prompt, seed, self.size, self.frames, self.moment, self.paint),
            "prompt": parse_prompt(prompt).brief if self.says == "colours" else prompt,
        }
