"""One denoising step: model, guidance, scheduler. Everything of it runs as one program."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from hotshot_jax.control.residuals import Control, control_residuals
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.models.controlnet import ControlNetModel
from hotshot_jax.parallel.placement import batch_sharding, projected_text_shardings
from hotshot_jax.pipelines.guidance import classifier_free_guidance, rescale_guidance
from hotshot_jax.pipelines.prompt import TextEmbeddings
from hotshot_jax.pipelines.runtime import Runtime
from hotshot_jax.schedulers.base import Scheduler


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conditioning:
    """What the UNet is conditioned on; the same for every step of a run.

    With guidance the batch is twice the videos: first the negative prompts, then the prompts.

    Attributes:
        text: projected text embeddings.
        pooled_text: `[batch, text_channels]`.
        time_ids: original size, crop offset and target size, `[batch, 6]`.
    """

    text: ProjectedText
    pooled_text: jax.Array
    time_ids: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Guidance:
    """Strength of the guidance, as arrays so that other values need no other program.

    Attributes:
        scale: weight of classifier-free guidance.
        rescale: factor of the contrast correction, 0 for none.
    """

    scale: jax.Array
    rescale: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class StepInput:
    """What changes from step to step.

    Attributes:
        timestep: scalar, as the model is given it.
        row: the scheduler's row for this call.
        noise: standard normal, with the shape of the latents, or None where none is used.
        control_scales: strength of each ControlNet, float32 `[controlnets]`.
    """

    timestep: ArrayLike
    row: Any
    noise: ArrayLike | None
    control_scales: ArrayLike


def denoising_step(
    unet: UNet3DConditionModel,
    conditioning: Conditioning,
    guidance: Guidance | None,
    scheduler: Scheduler,
    latents: jax.Array,
    solver: Any,
    step: StepInput,
    *,
    enable_temporal_attentions: bool,
    controlnets: Sequence[ControlNetModel] = (),
    controls: Sequence[Control] = (),
    guess_mode: bool = False,
) -> tuple[jax.Array, Any]:
    """Takes the latents one call of the scheduler further.

    Args:
        unet: the model.
        conditioning: what it is conditioned on.
        guidance: None for no guidance; the batch is then the videos alone.
        scheduler: turns predictions into steps.
        latents: `[videos, frames, height, width, channels]`, float32.
        solver: the scheduler's state.
        step: what changes from step to step.
        enable_temporal_attentions: false for single images.
        controlnets: models that add to the UNet; their scales are in `step`.
        controls: what each is conditioned on.
        guess_mode: the ControlNets see the conditional half alone.

    Returns:
        The next latents (float32) and solver state.
    """
    model_input = scheduler.scale_model_input(step.row, latents)
    if guidance is not None:
        model_input = jnp.concatenate([model_input, model_input])
    residuals = None
    if controlnets:
        residuals = control_residuals(
            controlnets,
            controls,
            jnp.asarray(step.control_scales),
            model_input,
            jnp.asarray(step.timestep),
            conditioning.pooled_text,
            conditioning.time_ids,
            videos=latents.shape[0],
            guess_mode=guess_mode,
        )
    prediction = unet(
        model_input.astype(unet.dtype),
        jnp.asarray(step.timestep),
        conditioning.text,
        conditioning.pooled_text,
        conditioning.time_ids,
        enable_temporal_attentions=enable_temporal_attentions,
        residuals=residuals,
    ).astype(jnp.float32)
    if guidance is not None:
        unconditional, conditional = jnp.split(prediction, 2)
        prediction = classifier_free_guidance(unconditional, conditional, guidance.scale)
        prediction = jax.lax.cond(
            guidance.rescale > 0,
            lambda guided: rescale_guidance(guided, conditional, guidance.rescale),
            lambda guided: guided,
            prediction,
        )
    return scheduler.step(step.row, solver, prediction, latents, step.noise)


def join_embeddings(
    embeddings: Sequence[TextEmbeddings], *, videos_per_prompt: int, dtype: Any
) -> TextEmbeddings:
    """One batch of embeddings.

    Args:
        embeddings: of the prompts; with guidance, those of the negative prompts before them.
        videos_per_prompt: how often each prompt is repeated.
        dtype: dtype of the result.
    """

    def joined(parts: list[jax.Array]) -> jax.Array:
        repeated = [jnp.repeat(part, videos_per_prompt, axis=0) for part in parts]
        return jnp.concatenate(repeated).astype(dtype)

    return TextEmbeddings(
        joined([each.hidden for each in embeddings]), joined([each.pooled for each in embeddings])
    )


def make_conditioning(
    runtime: Runtime, embeddings: TextEmbeddings, time_ids: tuple[float, ...]
) -> Conditioning:
    """Puts together what the UNet is conditioned on.

    Args:
        runtime: holds the UNet.
        embeddings: of the whole batch.
        time_ids: original size, crop offset and target size.
    """
    arrays, build = runtime.model("unet")

    def project(arrays: list[jax.Array], hidden: jax.Array) -> ProjectedText:
        unet: UNet3DConditionModel = build(arrays)
        return unet.project_text(hidden)

    # The reference rounds the sizes to the dtype of the embeddings.
    sizes = jnp.asarray([time_ids] * len(embeddings.pooled), runtime.precision.noise)
    arguments = (arrays, runtime.place(embeddings.hidden, batch_sharding))
    out_shardings = None
    if runtime.mesh is not None:
        shapes = jax.eval_shape(project, *arguments)
        out_shardings = projected_text_shardings(runtime.mesh, shapes)
    program = runtime.program(
        "text projection", None, project, arguments, out_shardings=out_shardings
    )
    return Conditioning(
        program(*arguments),
        runtime.place(embeddings.pooled, batch_sharding),
        runtime.place(sizes.astype(jnp.float32), batch_sharding),
    )
