"""Clips that start from another clip, and clips some frames or parts of which are known."""

from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import (
    PIPELINE_STEP,
    SINGLE_MODULE,
    WHOLE_MODEL,
    Case,
    Result,
    compare,
)
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.pipelines.pipeline import (
    call_pipeline,
    check_embeddings,
    check_made,
    check_time_ids,
    make_pipeline,
    models_of,
    read_inputs,
)
from benchmarks.parity_cases.pipelines.solver import check_schedule, read_solver
from hotshot_jax.pipelines.latents import encode_frames
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.known import Start

_KINDS = ("clip_video_to_video:", "clip_known_frames:")


def matches(case: Case) -> bool:
    """Whether the clip of the case starts from something."""
    return case.call.startswith(_KINDS)


def run(case: Case) -> Iterator[Result]:
    """Compares embeddings, clean and first latents, the latents after each call and the video."""
    yield from check_embeddings(case)
    solver = read_solver(case)
    yield from check_schedule(case, solver)
    yield check_time_ids(case)
    pipeline = make_pipeline(models_of(case))
    clean = channels_last(case["video_latents"])
    inputs: dict[str, Any] = read_inputs(case) | {"latents": channels_last(case["noise"])}
    video: Any = clean
    if "frames_uint8" in case:
        video = case["frames_uint8"]
        noise = np.moveaxis(case["vae_noise"], -3, -1).reshape(clean.shape)
        encoded = encode_frames(pipeline.runtime, video, noise, most_frames=4)
        stored = case["video_latents"]
        yield compare("video_latents", channels_first(encoded), stored, WHOLE_MODEL)
        inputs["noise"] = [noise, *inputs.get("noise", ())]
    strength = case.arguments["strength"]
    mask = case.get("mask")
    kept = None if mask is None else mask[0, 0]
    start = Start(clean, strength, None if kept is None else kept[None, ..., None])
    first = start.first_latents(solver.schedule, jnp.asarray(inputs["latents"]))
    for name in ("noised_latents", "first_latents"):
        if name in case:
            yield compare(name, channels_first(first), case[name], SINGLE_MODULE)
    given = StartInput(video, strength, kept)
    made = call_pipeline(case, pipeline, solver, start=given, **inputs)
    yield from check_made(case, solver, made)
    if kept is not None:
        expected = case["latents_per_step"][-1] * (mask == 0)
        got = made.latents[-1] * (mask == 0)
        yield compare("what is kept", got, expected, PIPELINE_STEP)
