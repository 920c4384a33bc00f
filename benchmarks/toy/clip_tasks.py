"""What loops, long clips and travel are tried on: prompts, ways to make them, what is measured."""

import colorsys
import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.toy.shapes_evaluator import measure, score, shape_colours
from hotshot_jax.data.shapes import all_prompts, is_held_out, parse_prompt, split_prompts
from hotshot_jax.measure.frames import measure_frames
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.windows import ContextConfig

Frames = npt.NDArray[np.uint8]
Keys = Mapping[int, str]
Record = dict[str, Any]

SLICE = 8
LONG = 64
TRAVEL = 24
_GAP = 1.25
_AS_STEADY = 1.1
_HUE_DEGREES = 3.0
# HSV's: of a colour that is nearly gray the hue is chance.
_VIVID = 0.25


@dataclasses.dataclass(frozen=True)
class Windows:
    """How clips are made in windows where a task asks for them."""

    length: int = 8
    overlap: int = 4
    fuse: str = "pyramid"
    initial_noise: str = "independent"

    def call(self, schedule: str) -> dict[str, Any]:
        """Arguments of the pipeline."""
        if schedule == "batched":
            return {"context": ContextConfig(self.length, 0, schedule)}
        context = ContextConfig(self.length, self.overlap, schedule, fuse=self.fuse)
        return {"context": context, "initial_noise": self.initial_noise}


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to make the clips of a task.

    Attributes:
        frames: that are made.
        call: arguments of the pipeline besides.
        batch: clips made in one call.
        first_key_alone: whether the prompt is that of the first key frame all over.
        also: clips that come of the prompt and the same frames without the model, by name.
        start: what a clip of a prompt and a size starts from.
        finish: makes the clip that is measured of the frames that are made.
    """

    frames: int
    call: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    batch: int = 1
    first_key_alone: bool = False
    also: Mapping[str, Callable[[Keys, Frames], Frames]] = dataclasses.field(default_factory=dict)
    start: Callable[[Keys, int], StartInput] | None = None
    finish: Callable[[Keys, Frames], Frames] = lambda keys, frames: frames

    @property
    def window_starts(self) -> list[int]:
        """First frames of the windows of a step, but for the first of all."""
        context = self.call.get("context")
        if context is None:
            return []
        return sorted({window[0] for window in context.windows(self.frames, 0)} - {0})


@dataclasses.dataclass(frozen=True)
class Figure:
    """A line of the summary.

    Attributes:
        name: what is told.
        values: by the way the clips were made.
        bound: what must hold, in words; empty if nothing must.
        holds: whether it does.
        percent: whether values are shares.
    """

    name: str
    values: Mapping[str, float]
    bound: str = ""
    holds: bool | None = None
    percent: bool = True


@dataclasses.dataclass(frozen=True)
class ClipTask:
    """A kind of clips that is tried.

    Attributes:
        count: clips of each way, by default.
        prompts: by key frame, of all clips that there can be.
        ways: by name; the first is the one that is tried, the others stand beside it.
        record: what is kept of a clip, as JSON's types.
        figures: what many records of each way tell.
    """

    count: int
    prompts: Sequence[Keys]
    ways: Mapping[str, Way]
    record: Callable[[Keys, Way, Frames], Record]
    figures: Callable[[Mapping[str, Sequence[Record]]], list[Figure]]

    def chosen(self, count: int) -> list[Keys]:
        """The prompts of so many clips; those of fewer are the first of more, spread evenly."""
        total = len(self.prompts)
        stride = next(
            step
            for step in range(max(1, round(total * (math.sqrt(5) - 1) / 2)), 2 * total + 1)
            if math.gcd(step, total) == 1
        )
        return [self.prompts[number * stride % total] for number in range(count)]


def clip_tasks(windows: Windows) -> dict[str, ClipTask]:
    """All kinds of clips, by name."""
    return {"loops": _loops(), "long": _long(windows), "travel": _travel(windows)}


def ping_pong(frames: Frames) -> Frames:
    """Forwards, then backwards, without doubled ends."""
    return np.concatenate([frames, frames[-2:0:-1]])


def setback(hues: Sequence[float]) -> float:
    """How far a path of hues in degrees goes back, at most, from the farthest that it had come."""
    if not hues:
        return 0.0
    unwound = np.unwrap(hues, period=360)
    forwards = unwound if unwound[-1] >= unwound[0] else -unwound
    return float((np.maximum.accumulate(forwards) - forwards).max())


def _loops() -> ClipTask:
    still = ("spinning", "standing still")
    prompts = [p for p in split_prompts("held_out") if parse_prompt(p).motion in still]
    return ClipTask(
        200,
        [{0: prompt} for prompt in prompts],
        {
            "loop": Way(SLICE, {"loop": True}, batch=10),
            "plain": Way(
                SLICE, batch=10, also={"ping-pong": lambda keys, frames: ping_pong(frames)}
            ),
        },
        _loop_record,
        _loop_figures,
    )


def _loop_record(keys: Keys, way: Way, frames: Frames) -> Record:
    measured = measure_frames(frames)
    return {**score(keys[0], measure(frames)), "loop_gap": measured.loop_gap}


def _loop_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    closed = shares(records, lambda record: record["loop_gap"] <= _GAP)
    found = [
        Figure(f"loop gap at most {_GAP}", closed, "90 %", closed["loop"] >= 0.9),
        Figure("loop gap at most 1", shares(records, lambda record: record["loop_gap"] <= 1)),
        Figure("loop gap, median", medians(records, "loop_gap"), percent=False),
    ]
    for name in ("colour", "shape", "background"):
        right = shares(records, operator.itemgetter(name))
        # A third of a clip in ten thousand is rounding, not a point.
        holds = right["loop"] >= right["plain"] - 0.03 - 1e-9
        found.append(Figure(f"{name} right", right, "plain - 3 points", holds))
    return [*found, Figure("motion right", shares(records, operator.itemgetter("motion")))]


def _long(windows: Windows) -> ClipTask:
    return ClipTask(
        20,
        [{0: prompt} for prompt in split_prompts("held_out")],
        {
            "windows": Way(LONG, windows.call("standard_static")),
            "batched": Way(LONG, windows.call("batched")),
            "plain, 8 frames": Way(SLICE, batch=10),
        },
        _long_record,
        _long_figures,
    )


def _long_record(keys: Keys, way: Way, frames: Frames) -> Record:
    slices = [
        score(keys[0], measure(frames[start : start + SLICE]))
        for start in range(0, len(frames), SLICE)
    ]
    differences = measure_frames(frames).differences
    starts = [start - 1 for start in way.window_starts]
    elsewhere = np.delete(differences, starts)
    return {
        "colour": [marks["colour"] for marks in slices],
        "shape": [marks["shape"] for marks in slices],
        "at_starts": float(np.mean(np.take(differences, starts))) if starts else None,
        "elsewhere": float(np.mean(elsewhere)),
    }


def _long_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    right = shares(records, lambda record: all(record["colour"] + record["shape"]))
    slices = {
        way: float(np.mean([[r["colour"], r["shape"]] for r in each]))
        for way, each in records.items()
    }
    seams = {
        way: float(np.mean([r["at_starts"] for r in each]))
        / max(1e-9, float(np.mean([r["elsewhere"] for r in each])))
        for way, each in records.items()
        if all(record["at_starts"] is not None for record in each)
    }
    steady = seams["windows"] <= _AS_STEADY
    return [
        Figure("all slices right", right, "90 %", right["windows"] >= 0.9),
        Figure("colours and shapes right", slices),
        Figure("step into windows, over others", seams, f"at most {_AS_STEADY}", steady, False),
    ]


def _travel(windows: Windows) -> ClipTask:
    prompts = []
    for first in all_prompts():
        parts = parse_prompt(first)
        last = str(dataclasses.replace(parts, colour="blue"))
        # Both can't be: what is held out depends on the colour.
        if parts.colour == "red" and (is_held_out(first) or is_held_out(last)):
            prompts.append({0: first, TRAVEL - 1: last})
    static = windows.call("standard_static")
    return ClipTask(
        40,
        prompts,
        {
            "windows": Way(TRAVEL, static, batch=2),
            "one window": Way(TRAVEL, batch=2),
            "batched": Way(TRAVEL, windows.call("batched"), batch=2),
            "plain, red": Way(TRAVEL, static, batch=2, first_key_alone=True),
        },
        _travel_record,
        _travel_figures,
    )


def _travel_record(keys: Keys, way: Way, frames: Frames) -> Record:
    first, last = (score(keys[at], measure(frames[[at]])) for at in (0, TRAVEL - 1))
    return {
        "first": {name: first[name] for name in ("colour", "shape", "background")},
        "last": {name: last[name] for name in ("colour", "shape", "background")},
        "colours": [
            None if colour is None else colour.round(1).tolist() for colour in shape_colours(frames)
        ],
    }


def _travel_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    ends = shares(records, lambda record: record["first"]["colour"] and record["last"]["colour"])
    shapes = shares(records, lambda record: record["first"]["shape"] and record["last"]["shape"])
    back = {
        least: {way: [_back(r["colours"], least) for r in each] for way, each in records.items()}
        for least in (0.0, _VIVID)
    }
    steady, vivid = (
        {way: float(np.mean(np.array(each) <= _HUE_DEGREES)) for way, each in found.items()}
        for found in back.values()
    )
    medians = {way: float(np.median(each)) for way, each in back[_VIVID].items()}
    both = ("windows", "one window")
    return [
        Figure("colour right at both ends", ends, "95 %", all(ends[way] >= 0.95 for way in both)),
        Figure(
            f"hue never back by {_HUE_DEGREES:g} degrees",
            steady,
            "80 %",
            all(steady[way] >= 0.8 for way in both),
        ),
        Figure(f"the same, saturation from {_VIVID:g}", vivid),
        Figure("hue goes back there, median degrees", medians, percent=False),
        Figure("shape right at both ends", shapes),
    ]


def _back(colours: Sequence[Sequence[float] | None], least: float) -> float:
    """How far the hue goes back in frames of at least this saturation; all must show a shape."""
    if any(colour is None for colour in colours):
        return math.inf
    found = [colorsys.rgb_to_hsv(*colour) for colour in colours if colour is not None]
    return setback([360 * hue for hue, saturation, _ in found if saturation >= least])


def shares(
    records: Mapping[str, Sequence[Record]], right: Callable[[Record], bool]
) -> dict[str, float]:
    """How many of the records of each way are right."""
    return {way: sum(map(right, each)) / max(1, len(each)) for way, each in records.items()}


def medians(records: Mapping[str, Sequence[Record]], name: str) -> dict[str, float]:
    """Of a number of the records of each way."""
    return {way: float(np.median([r[name] for r in each])) for way, each in records.items()}
