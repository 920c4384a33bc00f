"""Tables of context windows, travelling texts and FreeNoise."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.parity_cases.case import EXACT, SINGLE_MODULE, Case, Result, Verdict, compare
from benchmarks.parity_cases.tables import count_rows
from hotshot_jax.conditioning.key_frames import weights_of_frame
from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.known import Start
from hotshot_jax.sampling.noise import freenoise_frames
from hotshot_jax.sampling.torch_noise import TorchGenerator
from hotshot_jax.sampling.windows import (
    batched,
    circular,
    fuse_weights,
    half,
    rotation,
    standard_static,
    standard_uniform,
)
from hotshot_jax.schedulers import make_scheduler

# SDXL's own scheduler configuration.
_SDXL: dict[str, Any] = {
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "num_train_timesteps": 1000,
    "steps_offset": 1,
    "timestep_spacing": "leading",
}
_TABLES = ("context_windows", "travel_weights", "freenoise", "video_to_video_steps")


def matches(case: Case) -> bool:
    """Whether the case is one of these tables."""
    return case.call.partition(":")[0] in _TABLES


def run(case: Case) -> Iterator[Result]:
    """Compares every row; one line for each table."""
    kinds: dict[str, Callable[[Case], Iterator[Result]]] = {
        "context_windows": _context_windows,
        "travel_weights": _travel_weights,
        "freenoise": _freenoise,
        "video_to_video_steps": _video_to_video_steps,
    }
    yield from kinds[case.call.partition(":")[0]](case)


def _circular(closed: bool) -> Callable[..., Any]:
    def windows(frames: int, length: int, *rest: int) -> Any:
        # Of a clip shorter than a window the tables have the raw function, which gives the clip.
        if frames < length:
            return [range(frames)]
        overlap, stride, step = rest
        return circular(frames, length, overlap, stride, step, closed)

    return windows


def _standard_uniform(frames: int, length: int, *rest: int) -> Any:
    return standard_uniform(frames, length, *rest) if frames >= length else [range(frames)]


def _static(frames: int, length: int, overlap: int) -> Any:
    return standard_static(frames, length, overlap) if frames > length else [range(frames)]


def _batched(frames: int, length: int) -> Any:
    return batched(frames, length)


_SCHEDULES: dict[str, Callable[..., Any]] = {
    "looped_uniform_closed": _circular(closed=True),
    "looped_uniform_open": _circular(closed=False),
    "standard_uniform": _standard_uniform,
    "standard_static": _static,
    "batched": _batched,
}


def _context_windows(case: Case) -> Iterator[Result]:
    tables = case.description
    for name, rows in tables["windows"].items():
        found = [([list(each) for each in _SCHEDULES[name](*row[:-1])], row[-1]) for row in rows]
        yield dataclasses.replace(count_rows(found), what=name)
    halves = [(half(step), expected) for step, expected in tables["half"]]
    yield dataclasses.replace(count_rows(halves), what="half")
    turns = [
        ([rotation(frames, step) for step in range(len(row))], [each % frames for each in row])
        for frames, row in tables["loop_rotation"]
    ]
    yield dataclasses.replace(count_rows(turns), what="loop_rotation")
    for fuse, rows in tables["weights"].items():
        if isinstance(rows, dict):
            rows = [{"window": range(int(key)), "weights": row} for key, row in rows.items()]
        got = [
            fuse_weights(fuse, tuple(row["window"]), row.get("N", 10**6), row.get("o", 0))
            for row in rows
        ]
        expected = np.concatenate([np.asarray(row["weights"], np.float64) for row in rows])
        yield compare(f"weights, {fuse}", np.concatenate(got), expected, SINGLE_MODULE)
    for row in tables["sums"]:
        sums = np.zeros(row["N"])
        for window in row["windows"]:
            sums[window] += fuse_weights(row["fuse"], tuple(window), row["N"], row["o"])
        what = f"sums, {row['schedule']}, {row['fuse']}"
        yield compare(what, sums, np.asarray(row["sum_of_weights"]), SINGLE_MODULE)


def _travel_weights(case: Case) -> Iterator[Result]:
    rows = [
        (
            [
                list(weights_of_frame(row["key_frames"], frame, row["N"], row["closed"]))
                for frame in range(row["N"])
            ],
            row["a_b_t"],
        )
        for row in case.description["rows"]
    ]
    yield dataclasses.replace(count_rows(rows), what="a_b_t")


def _video_to_video_steps(case: Case) -> Iterator[Result]:
    """Which steps a strength leaves, and how clean latents are noised to the first of them."""
    counts, first, factors, expected = [], [], [], []
    for row in case.description["rows"]:
        steps = row["num_inference_steps"]
        try:
            first_step = Start(np.zeros(1), row["strength"]).first_step(steps)
        except UsageError:
            counts.append((0, row["model_calls"]))
            continue
        config = _SDXL | {"_class_name": row["scheduler"]}
        if "timestep_spacing" in row:
            config["timestep_spacing"] = row["timestep_spacing"]
        schedule = make_scheduler(row["scheduler"], config).schedule(steps, first_step)
        counts.append((schedule.calls, row["model_calls"]))
        first.append((float(schedule.timesteps[0]), float(row["first_timestep"])))
        factors.append((float(schedule.signal[0]), float(schedule.noise_level[0])))
        expected.append((row["z0_factor"], row["noise_factor"]))
    yield dataclasses.replace(count_rows(counts), what="model_calls")
    got, stored = (np.asarray(each) for each in zip(*first, strict=True))
    yield compare("first_timestep", got, stored, SINGLE_MODULE)
    yield compare("z0 and noise factors", np.asarray(factors), np.asarray(expected), SINGLE_MODULE)


def _freenoise(case: Case) -> Iterator[Result]:
    tables = case.description
    fresh = [
        (TorchGenerator(row["seed"]).randperm(row["size"]).tolist(), row["permutation"])
        for row in tables["randperm_fresh"]
    ]
    yield dataclasses.replace(count_rows(fresh), what="randperm_fresh")
    stream = []
    for row in tables["randperm_stream"]:
        generator = TorchGenerator(row["seed"])
        stream += [
            (generator.randperm(draw["size"]).tolist(), draw["permutation"])
            for draw in row["draws"]
        ]
    yield dataclasses.replace(count_rows(stream), what="randperm_stream")
    after: list[tuple[Any, Any]] = []
    for row in tables["randperm_after_randn"]:
        generator = TorchGenerator(row["seed"])
        generator.randn(tuple(row["randn_shape"]))
        after.append((generator.randperm(row["then_size"]).tolist(), row["permutation"]))
        after.append((generator.randperm(row["then_size_2"]).tolist(), row["permutation_2"]))
        drawn = np.asarray(row["then_randn_20"], np.float32)
        after.append((generator.randn((20,)).tolist(), drawn.tolist()))
    yield dataclasses.replace(count_rows(after), what="randperm_after_randn")
    yield from _first_noise(case)


def _first_noise(case: Case) -> Iterator[Result]:
    for row in case.description["freenoise"]:
        sources = freenoise_frames(row["seed"], row["N"], row["W"], row["o"])
        result = count_rows([(sources.tolist(), row["ade_source_frames"])])
        yield dataclasses.replace(result, what=f"source frames, seed {row['seed']}")
        published, diffusers = (case[name] for name in row["tensors"])
        # Drawn with the frames first, which a clip's noise here is not: its frames alone are asked.
        drawn = TorchGenerator(row["seed"]).randn(published.shape)
        yield compare(row["tensors"][0], drawn[sources], published, EXACT)
        note = "diffusers takes its order from the generator that drew the noise; here as ADE does"
        plain = TorchGenerator(row["seed"]).randn(diffusers.shape)
        theirs = plain[:, :, row["diffusers_source_frames"]]
        same = bool((theirs == diffusers).all())
        verdict = Verdict.DIFFERS if same else Verdict.FAILED
        yield Result(row["tensors"][1], verdict, note=note)
