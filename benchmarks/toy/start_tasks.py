"""What clips that start from something are tried on: a first frame, in-betweens, an extension.

What they start from is drawn, one clip a prompt, and measured against what was drawn.
"""

import dataclasses
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.toy.clip_tasks import (
    ClipTask,
    Figure,
    Frames,
    Keys,
    Record,
    Way,
    medians,
    shares,
)
from benchmarks.toy.shapes_evaluator import measure, score
from hotshot_jax.data.shapes import parse_prompt, render, split_prompts
from hotshot_jax.jobs.extension import Extension
from hotshot_jax.measure.comparison import compare_frames
from hotshot_jax.measure.frames import measure_frames
from hotshot_jax.pipelines.in_betweens import blended, length_with_between, start_between
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.windows import ContextConfig

_COUNT = 60
_FRAMES = 8
_KNOWN = 4
_BETWEEN = length_with_between(_KNOWN, 1)
_SEEN = 30.0
_EQUAL = 99.0
_BETTER = 3.0
_JOINT = 1.25
_HELD = 0.8


def start_tasks() -> dict[str, ClipTask]:
    """All kinds of clips that start from something, by name."""
    return {"first": _first(), "between": _between(), "extend": _extend()}


def drawn(keys: Keys, size: int) -> Frames:
    """The clip that is drawn for a prompt, uint8 `[8, size, size, 3]`."""
    return render(keys[0], 0, size, _FRAMES)


def _prompts(*, moving: bool) -> Sequence[Keys]:
    return [
        {0: prompt}
        for prompt in split_prompts("held_out")
        if not moving or parse_prompt(prompt).motion != "standing still"
    ]


def _held(picture: Frames) -> Frames:
    return np.broadcast_to(picture, (_FRAMES, *picture.shape))


def _first() -> ClipTask:
    def way(start: Callable[[Frames], StartInput]) -> Way:
        return Way(_FRAMES, start=lambda keys, size: start(drawn(keys, size)[0]))

    return ClipTask(
        _COUNT,
        _prompts(moving=False),
        {
            "first frame": way(lambda first: StartInput(known_frames={0: first})),
            "repaint 2": way(lambda first: StartInput(known_frames={0: first}, repaint=2)),
            "held, first frame": way(
                lambda first: StartInput(_held(first), 0.9, known_frames={0: first})
            ),
            "first frame attention": way(
                lambda first: StartInput(known_frames={0: first}, first_frame_attention=True)
            ),
            f"held, strength {_HELD:g}": way(lambda first: StartInput(_held(first), _HELD)),
        },
        _first_record,
        _first_figures,
    )


def _first_record(keys: Keys, way: Way, frames: Frames) -> Record:
    alone = [score(keys[0], measure(frame[None])) for frame in frames]
    steps = measure_frames(frames).differences
    return {
        **score(keys[0], measure(frames)),
        "frames": all(marks["colour"] and marks["shape"] for marks in alone),
        "psnr": compare_frames(frames[:1], drawn(keys, frames.shape[1])[:1]).psnr,
        "leap": steps[0] / max(max(steps[1:]), 1e-9),
    }


def _first_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    tried = next(iter(records))
    seen = shares(records, lambda record: record["psnr"] >= _SEEN)
    right = shares(records, lambda record: record["colour"] and record["shape"])
    motion = shares(records, operator.itemgetter("motion"))
    return [
        Figure(f"first frame at {_SEEN:g} dB", seen, "all", seen[tried] == 1),
        Figure("first frame, median dB", medians(records, "psnr"), percent=False),
        Figure("colour and shape right", right, "90 %", right[tried] >= 0.9),
        Figure("the same in every frame", shares(records, operator.itemgetter("frames"))),
        Figure("motion right", motion, "60 %", motion[tried] >= 0.6),
        Figure("first step over largest, median", medians(records, "leap"), percent=False),
    ]


def _between() -> ClipTask:
    def every_second(keys: Keys, size: int) -> Frames:
        return drawn(keys, size)[::2]

    def way(guidance: float, **options: Any) -> Way:
        def start(keys: Keys, size: int) -> StartInput:
            return start_between(every_second(keys, size), 1, **options)

        return Way(_BETWEEN, {"guidance_scale": guidance}, start=start)

    def from_noise(keys: Keys, size: int) -> StartInput:
        given = start_between(every_second(keys, size), 1)
        return StartInput(known_frames=given.known_frames, repaint=given.repaint)

    def blend(keys: Keys, made: Frames) -> Frames:
        return blended(every_second(keys, made.shape[1]), 1)

    return ClipTask(
        _COUNT,
        # What stands still is blended without a fault.
        _prompts(moving=True),
        {
            "in-betweens": dataclasses.replace(way(2.0), also={"linear blending": blend}),
            "each step once": way(2.0, repaint=1),
            "from noise": dataclasses.replace(way(2.0), start=from_noise),
            "from noise, guidance 5": dataclasses.replace(way(5.0), start=from_noise),
        },
        _between_record,
        _between_figures,
    )


def _between_record(keys: Keys, way: Way, frames: Frames) -> Record:
    truth = drawn(keys, frames.shape[1])[:_BETWEEN]
    # What is blended keeps its frames as they are.
    quality = np.minimum(compare_frames(frames, truth).psnr_of_frames, _EQUAL)
    return {"psnr": float(quality[1::2].mean()), "known": float(quality[::2].mean())}


def _between_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    means = {way: float(np.mean([r["psnr"] for r in each])) for way, each in records.items()}
    tried, blending = means["in-betweens"], means["linear blending"]
    above = {way: mean - blending for way, mean in means.items()}
    return [
        Figure("in-betweens, mean dB", means, percent=False),
        Figure(
            "above linear blending, dB", above, f"{_BETTER:g}", tried - blending >= _BETTER, False
        ),
        Figure("known frames, median dB", medians(records, "known"), percent=False),
    ]


def _extend() -> ClipTask:
    def extension(keys: Keys, size: int) -> Extension:
        return Extension(drawn(keys, size), _FRAMES, 2 * _KNOWN)

    def way(repaint: int, **call: object) -> Way:
        return Way(
            _KNOWN + _FRAMES,
            call,
            start=lambda keys, size: extension(keys, size).start(StartInput(repaint=repaint)),
            finish=lambda keys, made: extension(keys, made.shape[1]).joined(made)[:],
        )

    return ClipTask(
        _COUNT,
        _prompts(moving=False),
        {
            "extension": way(2, context=ContextConfig(2 * _KNOWN, _KNOWN, fuse="first")),
            "each step once": way(1, context=ContextConfig(2 * _KNOWN, _KNOWN, fuse="first")),
            "pyramid": way(2, context=ContextConfig(2 * _KNOWN, _KNOWN)),
            "one window": way(2),
            f"held, strength {_HELD:g}": Way(
                _FRAMES,
                start=lambda keys, size: StartInput(_held(drawn(keys, size)[-1]), _HELD),
                finish=lambda keys, made: np.concatenate([drawn(keys, made.shape[1]), made]),
            ),
        },
        _extend_record,
        _extend_figures,
    )


def _extend_record(keys: Keys, way: Way, frames: Frames) -> Record:
    steps = list(measure_frames(frames).differences)
    joint = steps.pop(_FRAMES - 1)
    marks = score(keys[0], measure(frames[_FRAMES:]))
    return {**marks, "joint": joint / max(max(steps), 1e-9)}


def _extend_figures(records: Mapping[str, Sequence[Record]]) -> list[Figure]:
    right = shares(records, lambda record: record["colour"] and record["shape"])
    smooth = shares(records, lambda record: record["joint"] <= _JOINT)
    return [
        Figure("colour and shape right", right, "90 %", right["extension"] >= 0.9),
        Figure(f"joint at most {_JOINT:g}", smooth, "all", smooth["extension"] == 1),
        Figure("joint, median", medians(records, "joint"), percent=False),
        Figure("motion goes on", shares(records, operator.itemgetter("motion"))),
    ]
