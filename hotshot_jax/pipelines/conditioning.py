"""From text embeddings to what the models are conditioned on in every step of a run."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from hotshot_jax.conditioning.control.residuals import Control
from hotshot_jax.conditioning.text.prompt import TextEmbeddings
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.parallel.placement import (
    batch_sharding,
    projected_text_shardings,
    video_sharding,
)
from hotshot_jax.pipelines.control import ControlInput, prepare_controls, with_text
from hotshot_jax.runtime.request import Request
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.predict import Conditioning


def make_conditionings(
    runtime: Runtime,
    texts: Sequence[Sequence[TextEmbeddings]],
    request: Request,
    *,
    videos_per_prompt: int = 1,
    controls: Sequence[ControlInput] = (),
    guess_mode: bool = False,
) -> list[Conditioning]:
    """What the models are conditioned on with each text of a run.

    Args:
        runtime: holds the models.
        texts: embeddings, with guidance those of the negative prompts before those of the prompts.
        request: numbers of the run.
        videos_per_prompt: how often each prompt is repeated.
        controls: what each ControlNet follows. Their frames are embedded once for all texts.
        guess_mode: the ControlNets see the conditional half alone.
    """
    branches = len(texts[0])
    batches = [
        join_embeddings(each, videos_per_prompt=videos_per_prompt, dtype=runtime.precision.compute)
        for each in texts
    ]
    only_last = len(batches[0].hidden) // 2 if guess_mode and branches > 1 else None
    first = prepare_controls(runtime, controls, batches[0].hidden, request, only_last=only_last)
    return [
        make_conditioning(
            runtime,
            batch,
            request.time_ids,
            controls=[
                with_text(runtime, index, control, batch.hidden, only_last) if number else control
                for index, control in enumerate(first)
            ],
            branches=branches,
        )
        for number, batch in enumerate(batches)
    ]


def join_embeddings(
    embeddings: Sequence[TextEmbeddings], *, videos_per_prompt: int, dtype: Any
) -> TextEmbeddings:
    """One batch of embeddings, with an axis of frames.

    Args:
        embeddings: of the prompts; with guidance, those of the negative prompts before them.
        videos_per_prompt: how often each prompt is repeated.
        dtype: dtype of the result.

    Returns:
        `hidden` `[batch, frames, tokens, channels]` and `pooled` `[batch, frames, text_channels]`;
        one frame where all share them.
    """

    def joined(parts: list[jax.Array], rank: int) -> jax.Array:
        by_frame = [part if part.ndim == rank else part[:, None] for part in parts]
        frames = max(part.shape[1] for part in by_frame)
        by_frame = [
            jnp.broadcast_to(part, (part.shape[0], frames, *part.shape[2:])) for part in by_frame
        ]
        repeated = [jnp.repeat(part, videos_per_prompt, axis=0) for part in by_frame]
        return jnp.concatenate(repeated).astype(dtype)

    return TextEmbeddings(
        joined([each.hidden for each in embeddings], 4),
        joined([each.pooled for each in embeddings], 3),
    )


def make_conditioning(
    runtime: Runtime,
    embeddings: TextEmbeddings,
    time_ids: tuple[float, ...],
    *,
    controls: Sequence[Control] = (),
    branches: int = 1,
) -> Conditioning:
    """Puts together what the models are conditioned on.

    Args:
        runtime: holds the UNet.
        embeddings: of the whole batch, with an axis of frames.
        time_ids: original size, crop offset and target size.
        controls: what each ControlNet is conditioned on.
        branches: 2 where the first half of the batch are the negative prompts.
    """
    arrays, build = runtime.model("unet")

    def project(arrays: list[jax.Array], hidden: jax.Array) -> ProjectedText:
        unet: UNet3DConditionModel = build(arrays)
        return unet.project_text(hidden)

    # The reference rounds the sizes to the dtype of the embeddings.
    sizes = jnp.asarray([time_ids] * len(embeddings.pooled), runtime.precision.noise)
    arguments = (arrays, runtime.place(embeddings.hidden, video_sharding))
    out_shardings = None
    if runtime.mesh is not None:
        shapes = jax.eval_shape(project, *arguments)
        out_shardings = projected_text_shardings(runtime.mesh, shapes)
    program = runtime.program(
        "text projection", None, project, arguments, out_shardings=out_shardings
    )
    return Conditioning(
        program(*arguments),
        runtime.place(embeddings.pooled, video_sharding),
        runtime.place(sizes.astype(jnp.float32), batch_sharding),
        list(controls),
        branches,
    )
