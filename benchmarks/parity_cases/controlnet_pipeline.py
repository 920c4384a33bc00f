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
from benchmarks.parity_cases.pipeline import (
    MODEL_CLASSES,
    check_call,
    check_embeddings,
    check_schedule,
    check_unet_calls,
    conditioning,
    make_pipeline,
    read_inputs,
    read_scheduler,
)
from hotshot_jax.control.frames import prepare_control_frames
from hotshot_jax.control.residuals import control_residuals, make_control
from hotshot_jax.control.windows import ControlWindow, scale_table
from hotshot_jax.models.controlnet import ControlNetModel
from hotshot_jax.models.unet import Residuals
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.precision import Precision, current_platform

_FIRST = "step0."


def matches(case: Case) -> bool:
    """Whether the case runs the pipeline with a ControlNet."""
    return case.call.startswith("HotshotXLControlNetPipeline.__call__(")


def run(case: Case) -> Iterator[Result]:
    """Compares control frames, scales, the first step's residuals, all latents and the video."""
    yield from check_embeddings(case)
    scheduler, difference = read_scheduler(case)
    yield from difference
    yield from check_schedule(case, scheduler)
    window = _window(case)
    scales = scale_table([window], case.arguments["num_inference_steps"])
    yield compare("cond_scale_per_step", scales[:, 0], case["cond_scale_per_step"], EXACT)
    frames = prepare_control_frames(
        case["control_images_uint8"],
        **{name: case.arguments[name] for name in ("video_length", "height", "width")},
    )
    yield compare(
        f"{_FIRST}controlnet_cond",
        channels_first(frames),
        case[f"{_FIRST}controlnet_cond"],
        EXACT,
    )
    yield from _check_controlnet_inputs(case)

    controlnet = load_controlnet(case.model("ControlNetModel"))
    residuals = _first_residuals(
        controlnet,
        jnp.asarray(frames[None]),
        conditioning(case, "prompt_embeds", True),
        conditioning(case, "pooled_prompt_embeds", True),
        jnp.asarray(case["time_ids"]),
        channels_last(case[f"{_FIRST}unet_input"]),
        jnp.float32(case["timesteps"][0]),
        jnp.asarray(scales[0]),
        guess_mode=_guess_mode(case),
    )
    yield from compare_residuals(
        case,
        residuals,
        f"{_FIRST}down_block_additional_residuals",
        f"{_FIRST}mid_block_additional_residual",
    )
    yield from check_unet_calls(case, scheduler, {_FIRST: residuals})

    plain = make_pipeline(tuple(case.model(name) for name in MODEL_CLASSES.values()))
    components = dataclasses.replace(plain.components, controlnets=(controlnet,))
    precision = Precision.named("f32", current_platform())
    pipeline = HotshotXLPipeline(components, precision=precision)
    pipeline.scheduler = scheduler
    control = ControlInput(case["control_images_uint8"], window)
    yield from check_call(case, pipeline, controls=[control], **read_inputs(case))


def _window(case: Case) -> ControlWindow:
    arguments = case.arguments
    return ControlWindow(
        arguments["controlnet_conditioning_scale"],
        arguments.get("control_guidance_start", 0.0),
        arguments.get("control_guidance_end", 1.0),
    )


def _guess_mode(case: Case) -> bool:
    return bool(case.arguments.get("guess_mode", False))


def _check_controlnet_inputs(case: Case) -> Iterator[Result]:
    """Compares what the ControlNet is given in the first step, but for its control frames.

    PyTorch's ControlNet takes frames as rows of a batch; in guess mode the conditional ones alone.
    """
    rows = slice(-1, None) if _guess_mode(case) else slice(None)
    frames = case.arguments["video_length"]
    sample = np.moveaxis(case[f"{_FIRST}unet_input"][rows], 2, 1)
    given = {
        "sample": (sample.reshape(-1, *sample.shape[2:]), SINGLE_MODULE),
        "encoder_hidden_states": (conditioning(case, "prompt_embeds", True)[rows], EXACT),
        "text_embeds": (
            np.repeat(conditioning(case, "pooled_prompt_embeds", True)[rows], frames, axis=0),
            EXACT,
        ),
        "time_ids": (np.repeat(case["time_ids"][rows], frames, axis=0), EXACT),
    }
    for name, (got, bound) in given.items():
        stored = f"{_FIRST}controlnet_{name}"
        yield compare(stored, got, case[stored], bound)


@jit_for_few_calls(static_argnames=("guess_mode",))
def _first_residuals(
    controlnet: ControlNetModel,
    frames: jax.Array,
    hidden: jax.Array,
    pooled: jax.Array,
    time_ids: jax.Array,
    model_input: jax.Array,
    timestep: jax.Array,
    scales: jax.Array,
    *,
    guess_mode: bool,
) -> Residuals:
    control = make_control(controlnet, hidden, [frames], only_last=1 if guess_mode else None)
    return control_residuals(
        [controlnet],
        [control],
        scales,
        model_input,
        timestep,
        pooled,
        time_ids,
        videos=1,
        guess_mode=guess_mode,
    )
