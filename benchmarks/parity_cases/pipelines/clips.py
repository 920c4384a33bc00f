"""Long clips, loops and texts that differ by frame, from given embeddings and latents."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import (
    EXACT,
    PIPELINE_STEP,
    SINGLE_MODULE,
    WHOLE_MODEL,
    Case,
    Result,
    Verdict,
    compare,
)
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_unet
from benchmarks.parity_cases.pipelines.pipeline import (
    call_of,
    call_pipeline,
    check_embeddings,
    check_made,
    check_time_ids,
    conditioning,
    make_pipeline,
    models_of,
    read_inputs,
)
from benchmarks.parity_cases.pipelines.solver import Solver, check_schedule, read_solver
from hotshot_jax.conditioning.key_frames import blend_keys, key_weights
from hotshot_jax.models import UNet3DConditionModel
from hotshot_jax.sampling.predict import Conditioning, StepInput, UNetPredictor
from hotshot_jax.sampling.windowed import WindowedPredictor, window_plan
from hotshot_jax.sampling.windows import ContextConfig

KINDS = ("clip_windows", "clip_loop", "clip_travel")


def matches(case: Case) -> bool:
    """Whether the case makes a clip in windows, in a loop, or with a travelling text."""
    return case.call.startswith(tuple(f"{kind}:" for kind in KINDS))


def run(case: Case) -> Iterator[Result]:
    """Compares embeddings, windows, their predictions, their sums, all latents and the video."""
    yield from check_embeddings(case)
    solver = read_solver(case)
    yield from check_schedule(case, solver)
    yield check_time_ids(case)
    context = context_of(case)
    yield from _check_windows(case, context)
    inputs = read_inputs(case)
    if "key_prompt_embeds" in case:
        yield from _check_travel(case)
        keys = case["key_frames"].tolist()
        for name in ("prompt_embeds", "pooled_prompt_embeds"):
            inputs[name] = {
                key: each[None] for key, each in zip(keys, case[f"key_{name}"], strict=True)
            }
    pipeline = make_pipeline(models_of(case))
    made = call_pipeline(case, pipeline, solver, context=context, **inputs)
    yield from _check_predictions(case, solver, context)
    yield from check_made(case, solver, made)


def context_of(case: Case) -> ContextConfig | None:
    """How the clip of the case is divided; None where it is not."""
    arguments = case.arguments
    return ContextConfig.of_clip(
        arguments["video_length"],
        positions=load_unet(case.model("UNet3DConditionModel")).config.temporal_positions,
        loop=arguments.get("closed_loop", False),
        length=arguments.get("context_length"),
        overlap=arguments.get("context_overlap"),
        schedule=arguments.get("context_schedule"),
        stride=arguments.get("context_stride", 1),
        fuse=arguments.get("fuse_method", "pyramid"),
    )


def _check_windows(case: Case, context: ContextConfig | None) -> Iterator[Result]:
    frames = case.arguments["video_length"]
    for step, expected in enumerate(case.description.get("windows_per_step", [])):
        whole = [tuple(range(frames))]
        windows = whole if context is None else context.windows(frames, step)
        if [list(window) for window in windows] != expected:
            note = f"step {step} has {windows}, expected {expected}"
            yield Result("windows_per_step", Verdict.FAILED, None, EXACT, note)
            return
        weights = case.description["weights_per_step"][step]
        sums = np.zeros(frames)
        for window, of_window in zip(expected, weights, strict=True):
            sums[window] += of_window
        if context is not None:
            shares = [
                np.asarray(of_window) / sums[window]
                for window, of_window in zip(expected, weights, strict=True)
            ]
            got = np.concatenate(context.weights(windows, frames))
            result = compare("weights_per_step", got, np.concatenate(shares), SINGLE_MODULE)
            if result.verdict.fails:
                yield dataclasses.replace(result, note=f"step {step}")
                return
    if "windows_per_step" in case.description:
        yield Result("windows and weights of all steps", Verdict.OK, 0.0, EXACT)


def _check_travel(case: Case) -> Iterator[Result]:
    """Compares which keys each frame blends, and the pooled text that this gives."""
    weights = _key_weights(case)
    expected = np.zeros_like(weights[0])
    for of_frame, (first, second, share) in zip(
        expected, case.arguments["travel_a_b_t"], strict=True
    ):
        of_frame[second] = share
        of_frame[first] += 1 - share
    yield compare("travel_a_b_t", weights[0], expected, EXACT)
    keys = jnp.asarray(case["key_pooled_prompt_embeds"])[None]
    pooled = blend_keys(keys, jnp.asarray(weights), axis=1)[0]
    name = "pooled_prompt_embeds_per_frame"
    if name in case:
        yield compare(name, pooled, case[name], SINGLE_MODULE)


def _key_weights(case: Case, rows: int = 1) -> np.ndarray:
    """Of `rows` rows; those before the last one, of negative prompts, have a single key."""
    keys = [(0,)] * (rows - 1) + [tuple(case["key_frames"].tolist())]
    closed = case.arguments["travel_closed"]
    return key_weights(keys, case.arguments["video_length"], closed=closed)


def _check_predictions(
    case: Case, solver: Solver, context: ContextConfig | None
) -> Iterator[Result]:
    """Compares what the UNet says of single windows, and the sums, where these are stored."""
    model = load_unet(case.model("UNet3DConditionModel"))
    frames = case.arguments["video_length"]
    stored_latents = case["latents_per_step"]
    for prefix in case.prefixes("unet_input"):
        call = call_of(prefix)
        before = case["latents"] * np.float32(solver.schedule.init_noise_sigma)
        if call:
            before = stored_latents[call - 1]
        row = solver.schedule.row(call)
        scaled = np.asarray(solver.scheduler.scale_model_input(row, before))
        stored = case[f"{prefix}unet_input"]
        expected = np.concatenate([scaled] * (len(stored) // len(scaled)))
        yield compare(f"{prefix}unet_input", expected, stored, SINGLE_MODULE)
        step = StepInput(np.float32(solver.schedule.timesteps[call]), 0.0, row, None, np.zeros(0))
        # Both calls of a solver that makes two a step have the same windows.
        number = int(solver.schedule.step_of_call[call])
        plan = window_plan(context, frames, number + 1, at_once=frames * frames)[number]
        outputs, fused = _predict(
            model,
            channels_last(stored),
            dataclasses.replace(step, windows=plan),
            *_told(case, len(stored)),
            jnp.asarray(case["time_ids"]),
        )
        if f"{prefix}window_outputs" in case:
            by_window = case[f"{prefix}window_outputs"]
            windows, rows = by_window.shape[:2]
            got = channels_first(outputs).reshape(rows, -1, *by_window.shape[2:]).swapaxes(0, 1)
            # A step of fewer windows than others has some of no weight.
            name = f"{prefix}window_outputs"
            yield compare(name, got[:windows], by_window, WHOLE_MODEL)
        name = f"{prefix}fused_output"
        yield compare(name, channels_first(fused), case[name], PIPELINE_STEP)


def _told(case: Case, rows: int) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Text and pooled text of all rows, and how frames blend them."""
    if "key_prompt_embeds" not in case:
        guided = rows > 1
        names = ("prompt_embeds", "pooled_prompt_embeds")
        hidden, pooled = (conditioning(case, name, guided) for name in names)
        return hidden[:, None], pooled[:, None], None

    def joined(name: str) -> jax.Array:
        keys = case[f"key_{name}"][None]
        negative = case.get(f"negative_{name}")
        away = np.zeros_like(keys) if negative is None else negative[:, None]
        away = np.broadcast_to(away, keys.shape)
        return jnp.asarray(np.concatenate([away, keys][-rows:]))

    keys = jnp.asarray(_key_weights(case, rows))
    return joined("prompt_embeds"), joined("pooled_prompt_embeds"), keys


@jit_for_few_calls()
def _predict(
    model: UNet3DConditionModel,
    latents: jax.Array,
    step: StepInput,
    hidden: jax.Array,
    pooled: jax.Array,
    keys: jax.Array | None,
    time_ids: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """What the UNet says of all windows, which are predicted at once, and the sums of that."""
    seen = []

    def predict(
        latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        prediction, cache = UNetPredictor(model)(latents, step, conditioning, cache)
        seen.append(prediction)
        return prediction, cache

    told = Conditioning(model.project_text(hidden), pooled, time_ids, keys=keys, branches=2)
    if step.windows:
        fused, _ = WindowedPredictor(predict)(latents, step, told, ())
    else:
        fused, _ = predict(latents, step, told.blended(), ())
    return seen[0], fused
