"""Measure what a clip of a coloured shape shows: colour, shape, motion and background.

Plain image processing: it knows the words of the prompts and what they mean to the eye, and nothing
of how the clips of the data set are drawn, so that it can be held against any model's output.

    python -m benchmarks.toy.shapes_evaluator CLIP.gif [...]
    python -m benchmarks.toy.shapes_evaluator --new_colour cyan CLIP.gif [...]
"""

import argparse
import json
import re
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageSequence
from scipy import ndimage
from scipy.spatial import ConvexHull

Float = npt.NDArray[np.float64]

# What the words look like, in sRGB.
COLOUR_WORDS = {
    "red": (220, 38, 38),
    "green": (40, 175, 60),
    "blue": (40, 80, 225),
    "yellow": (245, 220, 45),
    "orange": (245, 135, 25),
    "purple": (140, 50, 190),
    "pink": (250, 140, 190),
    "white": (245, 245, 245),
}
# Named only where they are asked about: to a model that was never taught them they are no words.
NEW_COLOUR_WORDS = {"cyan": (75, 215, 230)}
BACKGROUND_WORDS = {
    "black": (10, 10, 10),
    "gray": (128, 128, 128),
    "brown": (105, 65, 35),
    "teal": (10, 125, 125),
}
# Of an ideal outline: how strongly the shape repeats itself three, four and five times around its
# centre, and which share of its convex hull it fills.
SHAPE_SIGNATURES = {
    "circle": (0.00, 0.00, 0.00, 1.00),
    "square": (0.00, 0.43, 0.00, 1.00),
    "triangle": (0.75, 0.00, 0.00, 1.00),
    "star": (0.00, 0.00, 0.72, 0.60),
    "cross": (0.00, 0.55, 0.00, 0.68),
}
SYMMETRY = {"square": 4, "triangle": 3, "star": 5, "cross": 4}

# A shape has moved, grown or turned when it did so by at least this much over the clip: about half
# of what the prompts promise (a fifth of the frame, 1.5-fold, 60 degrees), far above the jitter of
# a shape that stands still.
MOVED = 0.10
GREW = 1.25
TURNED_DEGREES = 30.0
# A colour difference (CIE76) below which nothing stands out from the background.
VISIBLE = 12.0

_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])

PROMPT = re.compile(
    r"a (?P<colour>\w+) (?P<shape>\w+) (?P<motion>.+) on a (?P<background>\w+) background"
)


@dataclass(frozen=True)
class Measurement:
    """What a clip shows; None where nothing can be told.

    `shift_x`, `shift_y` are in units of the frame's sides, `growth` is last width over first,
    `turn_degrees` is signed, `seen` is the share of frames in which a shape stands out.
    """

    colour: str | None
    shape: str | None
    motion: str | None
    background: str | None
    shift_x: float = 0.0
    shift_y: float = 0.0
    growth: float = 1.0
    turn_degrees: float = 0.0
    seen: float = 0.0


@dataclass(frozen=True)
class _Blob:
    """The shape in one frame. `harmonics` holds the complex moments of orders 3, 4 and 5."""

    x: float
    y: float
    area: float
    solidity: float
    harmonics: npt.NDArray[np.complex128]
    colour: Float


def read_clip(path: str | Path) -> npt.NDArray[np.uint8]:
    """All frames of a GIF, WebP or picture as uint8 [frames, height, width, 3]."""
    with Image.open(path) as image:
        return np.stack([np.asarray(f.convert("RGB")) for f in ImageSequence.Iterator(image)])


def lab(rgb: npt.ArrayLike) -> Float:
    """CIE L*a*b* (D65) of sRGB values in 0..255, [..., 3]."""
    scaled = np.asarray(rgb, np.float64) / 255.0
    linear = np.where(scaled <= 0.04045, scaled / 12.92, ((scaled + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _WHITE
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), xyz * (841 / 108) + 4 / 29)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def _srgb(colour: Float) -> Float:
    """The inverse of `lab`, with what no screen shows cut off."""
    lightness, a, b = colour
    f = (lightness + 16) / 116 + np.array([a / 500, 0.0, -b / 200])
    xyz = np.where(f > 6 / 29, f**3, (f - 4 / 29) * (108 / 841)) * _WHITE
    linear = np.clip(np.linalg.solve(_TO_XYZ, xyz), 0.0, 1.0)
    coded = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    return 255 * coded


def _nearest(colour: Float, words: dict[str, tuple[int, int, int]]) -> str:
    return min(words, key=lambda word: float(np.linalg.norm(colour - lab(words[word]))))


def _background(frames: Float) -> Float:
    """The commonest colour near the edges, which a shape may touch but not fill."""
    rim = max(1, min(frames.shape[1:3]) // 16)
    edges = [
        frames[:, :rim].reshape(-1, 3),
        frames[:, -rim:].reshape(-1, 3),
        frames[:, :, :rim].reshape(-1, 3),
        frames[:, :, -rim:].reshape(-1, 3),
    ]
    return np.median(np.concatenate(edges), axis=0)


def _solidity(body: npt.NDArray[np.bool_]) -> float:
    filled = ndimage.binary_fill_holes(body)
    rows, columns = np.nonzero(filled)
    corners = np.concatenate(
        [np.stack([rows + down, columns + right], -1) for down in (0, 1) for right in (0, 1)]
    )
    return float(filled.sum() / ConvexHull(corners).volume)


def _blob(frame: Float, background: Float) -> _Blob | None:
    height, width = frame.shape[:2]
    contrast = np.linalg.norm(frame - background, axis=-1)
    # The smallest shape covers some four hundredths of the frame: the top two lie inside any.
    inside = np.median(np.sort(contrast, axis=None)[-max(1, contrast.size // 50) :])
    if inside < VISIBLE:
        return None
    labels, count = ndimage.label(contrast > inside / 2)
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())[1:]
    body = labels == 1 + int(np.argmax(sizes))
    if body.sum() < 12:
        return None
    weight = np.clip(contrast / inside, 0.0, 1.0) * ndimage.binary_dilation(body, iterations=1)
    rows, columns = np.nonzero(weight > 0.1)
    mass = weight[rows, columns]
    area = float(mass.sum())
    x, y = float(mass @ columns) / area, float(mass @ rows) / area
    offset = (columns - x) + 1j * (rows - y)
    squared = np.abs(offset) ** 2
    direction = offset / np.maximum(np.abs(offset), 1e-9)
    outer = mass * squared**2
    harmonics = np.array([outer @ direction**order for order in (3, 4, 5)]) / outer.sum()
    core = ndimage.binary_erosion(body, iterations=1 + min(height, width) // 100)
    core = core if core.any() else body
    return _Blob(
        x=x / width,
        y=y / height,
        area=area / (width * height),
        solidity=_solidity(body),
        harmonics=harmonics,
        colour=np.median(frame[core], axis=0),
    )


def _shape(blobs: list[_Blob]) -> str:
    strengths = np.median([np.abs(blob.harmonics) for blob in blobs], axis=0)
    signature = np.array([*strengths, np.median([blob.solidity for blob in blobs])])
    return min(
        SHAPE_SIGNATURES,
        key=lambda name: float(np.linalg.norm(signature - np.array(SHAPE_SIGNATURES[name]))),
    )


def _change(times: Float, values: Float) -> float:
    """How much a straight line through the values changes from the first frame to the last."""
    if len(times) < 2:
        return 0.0
    slope = np.polyfit(times, values, 1)[0]
    return float(slope)


def _turn(times: Float, blobs: list[_Blob], shape: str) -> float:
    order = SYMMETRY.get(shape)
    if order is None:
        return 0.0
    phases = np.angle([blob.harmonics[order - 3] for blob in blobs])
    return float(np.degrees(_change(times, np.unwrap(phases) / order)))


def _motion(shift_x: float, shift_y: float, growth: float, turn: float) -> str:
    # Each change in units of what makes it count; the strongest gives the motion its name.
    scores = {
        "moving right" if shift_x > 0 else "moving left": abs(shift_x) / MOVED,
        "moving down" if shift_y > 0 else "moving up": abs(shift_y) / MOVED,
        "growing" if growth > 1 else "shrinking": abs(np.log(growth)) / np.log(GREW),
        "spinning": abs(turn) / TURNED_DEGREES,
    }
    best = max(scores, key=lambda name: scores[name])
    return best if scores[best] >= 1.0 else "standing still"


def measure(frames: npt.NDArray[np.uint8], new_colours: Collection[str] = ()) -> Measurement:
    """Tell what a clip shows.

    Args:
        frames: uint8 RGB [frames, height, width, 3].
        new_colours: those of `NEW_COLOUR_WORDS` that a shape may have besides the others.
    """
    words = COLOUR_WORDS | {word: NEW_COLOUR_WORDS[word] for word in new_colours}
    pictures = lab(ndimage.median_filter(frames, size=(1, 3, 3, 1)))
    ground = _background(pictures)
    background = _nearest(ground, BACKGROUND_WORDS)
    found = [(index, _blob(picture, ground)) for index, picture in enumerate(pictures)]
    seen = [(index, blob) for index, blob in found if blob is not None]
    share = len(seen) / len(frames)
    if share < 0.75:
        return Measurement(None, None, None, background, seen=share)
    blobs = [blob for _, blob in seen]
    times = np.array([index for index, _ in seen], np.float64) / max(1, len(frames) - 1)
    shape = _shape(blobs)
    shift_x = _change(times, np.array([blob.x for blob in blobs]))
    shift_y = _change(times, np.array([blob.y for blob in blobs]))
    growth = float(np.exp(_change(times, np.log([blob.area for blob in blobs])) / 2))
    turn = _turn(times, blobs, shape)
    return Measurement(
        colour=_nearest(np.median([blob.colour for blob in blobs], axis=0), words),
        shape=shape,
        motion=_motion(shift_x, shift_y, growth, turn),
        background=background,
        shift_x=shift_x,
        shift_y=shift_y,
        growth=growth,
        turn_degrees=turn,
        seen=share,
    )


def shape_colours(frames: npt.NDArray[np.uint8]) -> list[Float | None]:
    """Colour of the shape in each frame, sRGB [3] in 0..255; None where no shape stands out.

    Args:
        frames: uint8 RGB [frames, height, width, 3].
    """
    pictures = lab(ndimage.median_filter(frames, size=(1, 3, 3, 1)))
    blobs = [_blob(picture, _background(picture[None])) for picture in pictures]
    return [None if blob is None else _srgb(blob.colour) for blob in blobs]


def score(prompt: str, measurement: Measurement) -> dict[str, bool]:
    """Which of the four attributes of a prompt a clip shows, and `all` of them at once.

    Raises:
        ValueError: the prompt is not of the form that this evaluator can read.
    """
    wanted = PROMPT.fullmatch(" ".join(prompt.split()))
    if wanted is None:
        raise ValueError(f"not a prompt about a coloured shape: {prompt!r}")
    marks = {
        name: getattr(measurement, name) == wanted[name]
        for name in ("colour", "shape", "motion", "background")
    }
    return marks | {"all": all(marks.values())}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toy.shapes_evaluator")
    parser.add_argument("clips", nargs="+", metavar="CLIP", help="GIF, WebP or picture")
    parser.add_argument(
        "--new_colour",
        action="append",
        default=[],
        choices=NEW_COLOUR_WORDS,
        help="a colour that a shape may have besides the others; may be repeated",
    )
    given = parser.parse_args(arguments)
    for path in given.clips:
        found = measure(read_clip(path), given.new_colour)
        print(json.dumps({"file": path, **asdict(found)}))


if __name__ == "__main__":
    main()
