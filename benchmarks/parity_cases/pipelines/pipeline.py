"""The pipeline from given embeddings and latents."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.parity_cases import unet
from benchmarks.parity_cases.case import (
    EXACT,
    PIPELINE_STEP,
    PIXEL,
    SINGLE_MODULE,
    WHOLE_MODEL,
    Case,
    ModelReference,
    Result,
    Verdict,
    compare,
    worst,
)
from benchmarks.parity_cases.layout import channels_first, channels_last
from benchmarks.parity_cases.models import load_text_encoder, load_unet, load_vae
from benchmarks.parity_cases.pipelines.solver import Solver, check_schedule, read_solver
from hotshot_jax.conditioning.text.prompt import encode_tokens
from hotshot_jax.models.unet.unet import Residuals
from hotshot_jax.models.vae import AutoencoderKL, AutoencoderKLConfig
from hotshot_jax.pipelines.components import Components
from hotshot_jax.pipelines.hotshot_xl import HotshotXLPipeline
from hotshot_jax.runtime.precision import Precision, current_platform

MODEL_CLASSES = {
    "unet": "UNet3DConditionModel",
    "vae": "AutoencoderKL",
    "text_encoder": "CLIPTextModel",
    "text_encoder_2": "CLIPTextModelWithProjection",
}
# Arguments of the case that are arguments of the call.
_PASSED = (
    "video_length height width num_inference_steps guidance_scale guidance_rescale denoising_end "
    "original_size crops_coords_top_left target_size eta prompt prompt_2 negative_prompt "
    "negative_prompt_2 seed guess_mode"
).split()
# Arguments that say how the case was made, or that are read elsewhere.
_DESCRIBED = (
    "negative init_noise_sigma dtype controlnet_conditioning_scale control_guidance_start "
    "control_guidance_end context_schedule context_length context_overlap context_stride "
    "closed_loop fuse_method travel_closed travel_a_b_t strength first_step"
).split()


def matches(case: Case) -> bool:
    """Whether the case runs the pipeline, but not from text."""
    return case.call.startswith("HotshotXLPipeline.__call__(") and not is_from_text(case)


def is_from_text(case: Case) -> bool:
    """Whether the case starts at a prompt and a seed."""
    return "tokenizers" in case.description


def run(case: Case) -> Iterator[Result]:
    """Compares embeddings, calls of the UNet, the latents after each step, and the video."""
    yield from check_embeddings(case)
    solver = read_solver(case)
    yield from check_schedule(case, solver)
    pipeline = make_pipeline(models_of(case))
    made = call_pipeline(case, pipeline, solver, **read_inputs(case))
    yield from check_unet_calls(case, solver, made, {})
    yield from check_made(case, solver, made)


def read_inputs(case: Case) -> dict[str, Any]:
    """The tensors of the case that are arguments of the call."""
    inputs: dict[str, Any] = {
        name: case[name]
        for name in (
            "prompt_embeds",
            "pooled_prompt_embeds",
            "negative_prompt_embeds",
            "negative_pooled_prompt_embeds",
        )
        if name in case
    }
    if "latents" in case:
        inputs["latents"] = channels_last(case["latents"])
    if "step_noise" in case:
        inputs["noise"] = [channels_last(noise) for noise in case["step_noise"]]
    return inputs


def models_of(case: Case) -> tuple[ModelReference | None, ...]:
    """The models of a pipeline; one that decodes nothing may name no VAE."""
    named = {model.config.get("_class_name") for model in case.models()}
    return tuple(
        None if component == "vae" and name not in named else case.model(name)
        for component, name in MODEL_CLASSES.items()
    )


@functools.lru_cache(maxsize=2)
def make_pipeline(models: tuple[ModelReference | None, ...]) -> HotshotXLPipeline:
    """A float32 pipeline over formula weights, without tokenizers.

    Its scheduler is set by the caller. One pipeline serves all cases of the same models, so that
    cases of equal shapes share compiled programs.
    """
    unet_reference, vae, text_encoder, text_encoder_2 = models
    assert unet_reference and text_encoder and text_encoder_2
    components = Components(
        text_encoder=load_text_encoder(text_encoder),
        text_encoder_2=load_text_encoder(text_encoder_2),
        tokenizer=None,
        tokenizer_2=None,
        unet=load_unet(unet_reference),
        vae=_smallest_vae() if vae is None else load_vae(vae),
        scheduler_config={"_class_name": "EulerDiscreteScheduler"},
    )
    return HotshotXLPipeline(components, precision=Precision.named("f32", current_platform()))


def _smallest_vae() -> AutoencoderKL:
    config = AutoencoderKLConfig(
        block_out_channels=(4,) * 4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        norm_num_groups=4,
    )
    return AutoencoderKL(config, rngs=nnx.Rngs(0))


@dataclasses.dataclass(frozen=True)
class Made:
    """What the pipeline made.

    Attributes:
        latents: after each call of the model, channels first.
        videos: `[videos, frames, height, width, 3]`; None where the case has none.
    """

    latents: Sequence[np.ndarray]
    videos: np.ndarray | None


def call_pipeline(case: Case, pipeline: HotshotXLPipeline, solver: Solver, **given: Any) -> Made:
    """Calls the pipeline with the case's arguments.

    Args:
        case: the case.
        pipeline: is given the solver's scheduler.
        solver: from `read_solver`.
        given: arguments of the call that are tensors, or that the case has under other names.

    Raises:
        LookupError: the case has an argument that is not known here.
    """
    unknown = set(case.arguments) - {*_PASSED, *_DESCRIBED}
    if unknown:
        raise LookupError(f"arguments that are not known here: {sorted(unknown)}")
    arguments = {name: value for name, value in case.arguments.items() if name in _PASSED}
    latents: list[np.ndarray] = []

    def keep(_: Any, call: int, timestep: float, values: dict[str, Any]) -> dict[str, Any]:
        latents.append(channels_first(values["latents"]))
        return values

    pipeline.scheduler = solver.scheduler
    output = pipeline(
        **arguments,
        **given,
        # Brackets are text to the reference.
        prompt_weights=False,
        output_type="np" if "video" in case else "latent",
        callback_on_step_end=keep,
    )
    return Made(latents, output.videos if "video" in case else None)


def check_made(case: Case, solver: Solver, made: Made) -> Iterator[Result]:
    """Compares latents and video."""
    expected = case["latents_per_step"]
    calls = solver.recorded(len(expected), len(made.latents))
    if calls is None:
        note = f"{len(expected)} entries for {len(made.latents)} calls of the model"
        yield Result("latents_per_step", Verdict.FAILED, None, PIPELINE_STEP, note)
    else:
        yield worst(
            "latents_per_step",
            [
                compare("", made.latents[call], reference, PIPELINE_STEP, note=f"call {call}")
                for call, reference in zip(calls, expected, strict=True)
            ],
        )
    if made.videos is not None:
        video = channels_first(made.videos)
        yield compare("video", video, case["video"], PIXEL, absolute=True)
        # Beside noise for the VAE they are what the clip starts from.
        if "frames_uint8" in case and "vae_noise" not in case:
            yield _check_frames(made.videos, case["frames_uint8"])


def check_embeddings(case: Case) -> Iterator[Result]:
    """Compares the embeddings of stored token ids."""
    for prefix in ("", "negative_", "key_"):
        names = [f"{prefix}prompt_embeds", f"{prefix}pooled_prompt_embeds"]
        if f"{prefix}input_ids" not in case or names[0] not in case:
            continue
        encoders = (
            load_text_encoder(case.model(MODEL_CLASSES[name]))
            for name in ("text_encoder", "text_encoder_2")
        )
        ids = (case[f"{prefix}{name}"].astype(np.int32) for name in ("input_ids", "input_ids_2"))
        for name, got in zip(names, _encode(*encoders, *ids), strict=True):
            yield compare(name, got, case[name], WHOLE_MODEL)


def check_unet_calls(
    case: Case, solver: Solver, made: Made, residuals: Mapping[str, Residuals]
) -> Iterator[Result]:
    """Compares what goes into and comes out of the UNet in the calls for which that is stored.

    Args:
        case: the case, with tensors `stepN.unet_input` and `stepN.unet_output`; N counts the calls
            from 0.
        solver: scales the UNet's input.
        made: gives the latents before calls for which the case has none.
        residuals: what a ControlNet adds in some of these calls, by the prefix of their tensors.
    """
    schedule, time_ids = solver.schedule, case["time_ids"]
    yield check_time_ids(case)
    model = load_unet(case.model("UNet3DConditionModel"))
    stored_latents = case["latents_per_step"]
    calls = solver.recorded(len(stored_latents), len(made.latents)) or []
    after_call = dict(zip(calls, stored_latents, strict=False))
    for prefix in case.prefixes("unet_input"):
        call = call_of(prefix)
        before, bound = after_call.get(call - 1), SINGLE_MODULE
        if call == 0:
            before = case["latents"] * np.float32(schedule.init_noise_sigma)
        elif before is None:
            before, bound = made.latents[call - 1], PIPELINE_STEP
        scaled = np.asarray(solver.scheduler.scale_model_input(schedule.row(call), before))
        stored = case[f"{prefix}unet_input"]
        guided = len(stored) == 2 * len(before)
        expected = np.concatenate([scaled, scaled]) if guided else scaled
        yield compare(f"{prefix}unet_input", expected, stored, bound)
        output = unet.forward(
            model,
            channels_last(stored),
            jnp.full(len(stored), schedule.timesteps[call], jnp.float32),
            conditioning(case, "prompt_embeds", guided),
            conditioning(case, "pooled_prompt_embeds", guided),
            jnp.asarray(time_ids),
            residuals.get(prefix),
            temporal=case.arguments["video_length"] > 1,
        )
        name = f"{prefix}unet_output"
        yield compare(name, channels_first(output), case[name], WHOLE_MODEL)


def call_of(prefix: str) -> int:
    """The number in `stepN.`.

    Raises:
        LookupError: the prefix is another.
    """
    found = re.fullmatch(r"step(\d+)\.", prefix)
    if found is None:
        raise LookupError(f"tensors of {prefix!r}: expected stepN., N being the number of a call")
    return int(found[1])


def conditioning(case: Case, name: str, guided: bool) -> jax.Array:
    """Embeddings of the negative prompts, then of the prompts."""
    positive = case[name]
    if not guided:
        return jnp.asarray(positive)
    negative = case.get(f"negative_{name}")
    return jnp.concatenate([jnp.zeros_like(positive) if negative is None else negative, positive])


def check_time_ids(case: Case) -> Result:
    """Compares the sizes that the UNet is told."""
    arguments, stored = case.arguments, case["time_ids"]
    size = [arguments["height"], arguments["width"]]
    numbers = [
        *arguments.get("original_size", size),
        *arguments.get("crops_coords_top_left", (0, 0)),
        *arguments.get("target_size", size),
    ]
    return compare("time_ids", np.asarray([numbers] * len(stored), np.float32), stored, EXACT)


def _check_frames(videos: np.ndarray, expected: np.ndarray) -> Result:
    """Bytes, which may be one off where a value lies at the edge between two."""
    from hotshot_jax.media.pixels import to_uint8

    got = to_uint8(videos[0]) / 255
    return compare("frames_uint8", got, expected / 255, PIXEL * (1 + 1e-6), absolute=True)


_encode = jax.jit(encode_tokens)
