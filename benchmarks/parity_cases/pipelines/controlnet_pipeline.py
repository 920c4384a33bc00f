"""The pipeline with a ControlNet, from given embeddings, latents and control frames."""

import dataclasses
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.parity_cases.case import EXACT, SINGLE_MODULE, Case, Result, compare
from benchmarks.parity_cases.compilation import jit_for_few_calls
from benchmarks.parity_cases.controlnet import compare_residuals
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_controlnet
from benchmarks.parity_cases.pipelines.pipeline import (
    call_of,
    call_pipeline,
    check_embeddings,
    check_made,
    check_unet_calls,
    conditioning,
    make_pipeline,
    models_of,
    read_inputs,
)
from benchmarks.parity_cases.pipelines.solver import check_schedule, read_solver
from hotshot_jax.conditioning.control.preprocess import prepare_control_frames
from hotshot_jax.conditioning.control.residuals import control_residuals, make_control
from hotshot_jax.conditioning.control.windows import ControlWindow, scale_table
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.models.unet.unet import Residuals
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.precision import Precision, current_platform


def matches(case: Case) -> bool:
    """Whether the case runs the pipeline with a ControlNet."""
    return case.call.startswith("HotshotXLControlNetPipeline.__call__(")


def run(case: Case) -> Iterator[Result]:
    """Compares control frames, scales, residuals, all latents and the video."""
    yield from check_embeddings(case)
    solver = read_solver(case)
    yield from check_schedule(case, solver)
    window = _window(case)
    scales = scale_table([window], solver.schedule.whole_calls)
    stored_scales = case["cond_scale_per_step"]
    yield compare("cond_scale_per_step", scales[:, 0], stored_scales, EXACT)
    frames = prepare_control_frames(
        case["control_images_uint8"],
        **{name: case.arguments[name] for name in ("video_length", "height", "width")},
    )
    controlnet = load_controlnet(case.model("ControlNetModel"))
    residuals = {}
    for prefix in case.prefixes("mid_block_additional_residual"):
        yield from _check_inputs(case, prefix, frames)
        call = call_of(prefix)
        model_input = case[f"{prefix}unet_input"]
        guided = len(model_input) > len(case["latents"])
        residuals[prefix] = _residuals(
            controlnet,
            jnp.asarray(frames[None]),
            conditioning(case, "prompt_embeds", guided),
            conditioning(case, "pooled_prompt_embeds", guided),
            jnp.asarray(case["time_ids"]),
            channels_last(model_input),
            jnp.float32(case["timesteps"][call]),
            jnp.asarray(scales[call]),
            guided=guided,
            guess_mode=_guess_mode(case),
        )
        yield from compare_residuals(
            case,
            residuals[prefix],
            f"{prefix}down_block_additional_residuals",
            f"{prefix}mid_block_additional_residual",
        )
    plain = make_pipeline(models_of(case))
    components = dataclasses.replace(plain.components, controlnets=(controlnet,))
    precision = Precision.named("f32", current_platform())
    pipeline = HotshotXLPipeline(components, precision=precision)
    control = ControlInput(case["control_images_uint8"], window)
    made = call_pipeline(case, pipeline, solver, controls=[control], **read_inputs(case))
    yield from check_unet_calls(case, solver, made, residuals)
    yield from check_made(case, solver, made)


def _window(case: Case) -> ControlWindow:
    arguments = case.arguments
    return ControlWindow(
        arguments["controlnet_conditioning_scale"],
        arguments.get("control_guidance_start", 0.0),
        arguments.get("control_guidance_end", 1.0),
    )


def _guess_mode(case: Case) -> bool:
    return bool(case.arguments.get("guess_mode", False))


def _check_inputs(case: Case, prefix: str, control_frames: np.ndarray) -> Iterator[Result]:
    """Compares what the ControlNet is given in one call, where that is stored.

    PyTorch's ControlNet takes frames as rows of a batch; in guess mode the conditional ones alone.
    """
    model_input, videos = case[f"{prefix}unet_input"], len(case["latents"])
    guided = len(model_input) > videos
    rows = slice(-videos, None) if _guess_mode(case) else slice(None)
    frames = case.arguments["video_length"]
    sample = np.moveaxis(model_input[rows], 2, 1)
    given = {
        "cond": (channels_first(control_frames), EXACT),
        "sample": (sample.reshape(-1, *sample.shape[2:]), SINGLE_MODULE),
        "encoder_hidden_states": (conditioning(case, "prompt_embeds", guided)[rows], EXACT),
        "text_embeds": (
            np.repeat(conditioning(case, "pooled_prompt_embeds", guided)[rows], frames, axis=0),
            EXACT,
        ),
        "time_ids": (np.repeat(case["time_ids"][rows], frames, axis=0), EXACT),
    }
    for name, (got, bound) in given.items():
        stored = f"{prefix}controlnet_{name}"
        if stored in case:
            yield compare(stored, got, case[stored], bound)


@jit_for_few_calls(static_argnames=("guided", "guess_mode"))
def _residuals(
    controlnet: ControlNetModel,
    frames: jax.Array,
    hidden: jax.Array,
    pooled: jax.Array,
    time_ids: jax.Array,
    model_input: jax.Array,
    timestep: jax.Array,
    scales: jax.Array,
    *,
    guided: bool,
    guess_mode: bool,
) -> Residuals:
    videos = len(model_input) // 2 if guided else len(model_input)
    only_last = videos if guided and guess_mode else None
    control = make_control(controlnet, hidden, [frames], only_last=only_last)
    return control_residuals(
        [controlnet],
        [control],
        scales,
        model_input,
        timestep,
        pooled,
        time_ids,
        videos=videos,
        guess_mode=guess_mode,
    )
