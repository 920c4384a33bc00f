"""From text embeddings to what the models are conditioned on in every step of a run."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.conditioning.control.residuals import Control
from hotshot_jax.conditioning.key_frames import extremes, key_weights, numbers_by_frame
from hotshot_jax.conditioning.text.text_embeddings import TextEmbeddings
from hotshot_jax.models import ProjectedText, UNet3DConditionModel
from hotshot_jax.parallel.placement import batch_sharding, projected_text_shardings, video_sharding
from hotshot_jax.pipelines.control import ControlInput, prepare_controls, with_text
from hotshot_jax.runtime.runtime import Runtime
from hotshot_jax.sampling.predict import Conditioning
from hotshot_jax.sampling.request import Request, block_names


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
        join_embeddings(
            each,
            videos_per_prompt=videos_per_prompt,
            dtype=runtime.precision.compute,
            frames=request.video_length,
        )
        for each in texts
    ]
    motion_scale = _motion_scale(runtime, request, len(batches[0].pooled))
    only_last = len(batches[0].hidden) // 2 if guess_mode and branches > 1 else None
    first = prepare_controls(runtime, controls, batches[0].hidden, request, only_last=only_last)
    return [
        make_conditioning(
            runtime,
            batch,
            request,
            motion_scale=motion_scale,
            controls=[
                with_text(runtime, index, control, batch.hidden, only_last) if number else control
                for index, control in enumerate(first)
            ],
            branches=branches,
        )
        for number, batch in enumerate(batches)
    ]


def join_embeddings(
    embeddings: Sequence[TextEmbeddings], *, videos_per_prompt: int, dtype: Any, frames: int = 1
) -> TextEmbeddings:
    """One batch of embeddings, with an axis of frames, or of keys if any of them has keys.

    Args:
        embeddings: of the prompts; with guidance, those of the negative prompts before them.
        videos_per_prompt: how often each prompt is repeated.
        dtype: dtype of the result.
        frames: of the clip.

    Returns:
        `hidden` `[batch, frames, tokens, channels]` and `pooled` `[batch, frames, text_channels]`;
        one frame where all share them.
    """

    keys = None
    if any(each.keys is not None for each in embeddings):
        of_parts = [each.keys or _keys_of_frames(each, frames) for each in embeddings]
        keys = tuple(row for part in of_parts for row in part for _ in range(videos_per_prompt))
    hidden, pooled = _joined(
        [each.hidden for each in embeddings],
        [each.pooled for each in embeddings],
        times=videos_per_prompt,
        dtype=dtype,
    )
    return TextEmbeddings(hidden, pooled, keys)


# One program: operation by operation there are ten, and compiling is most of a run's start.
@functools.partial(jax.jit, static_argnames=("times", "dtype"))
def _joined(
    hidden: list[jax.Array], pooled: list[jax.Array], *, times: int, dtype: Any
) -> tuple[jax.Array, jax.Array]:
    def join(parts: list[jax.Array], rank: int) -> jax.Array:
        by_frame = [part if part.ndim == rank else part[:, None] for part in parts]
        most = max(part.shape[1] for part in by_frame)
        # Rows of fewer keys never read those that are filled in.
        filled = [
            jnp.take(part, np.minimum(range(most), part.shape[1] - 1), 1) for part in by_frame
        ]
        repeated = [jnp.repeat(part, times, axis=0) for part in filled]
        return jnp.concatenate(repeated).astype(dtype)

    return join(hidden, 4), join(pooled, 3)


def _keys_of_frames(embeddings: TextEmbeddings, frames: int) -> tuple[tuple[int, ...], ...]:
    """Embeddings by frame, or one for all, as if every frame or the first one were a key."""
    by_frame = embeddings.pooled.ndim == 3 and embeddings.pooled.shape[1] > 1
    return (tuple(range(frames if by_frame else 1)),) * len(embeddings.pooled)


def _motion_scale(runtime: Runtime, request: Request, batch: int) -> jax.Array | None:
    """Factors of the temporal transformers, `[batch, frames, blocks]`; None where all are 1."""
    levels = len(runtime.components.unet.config.block_out_channels)
    by_block = request.motion_scales(block_names(levels))
    if all(extremes(number) == (1.0, 1.0) for number in by_block):
        return None
    scales = np.stack(
        [
            numbers_by_frame(number, request.video_length, closed=request.closed)
            for number in by_block
        ],
        axis=-1,
    )
    return runtime.place(np.repeat(scales[None], batch, 0), video_sharding)


def make_conditioning(
    runtime: Runtime,
    embeddings: TextEmbeddings,
    request: Request,
    *,
    controls: Sequence[Control] = (),
    motion_scale: jax.Array | None = None,
    branches: int = 1,
) -> Conditioning:
    """Puts together what the models are conditioned on.

    Args:
        runtime: holds the UNet.
        embeddings: of the whole batch, with an axis of frames.
        request: numbers of the run.
        controls: what each ControlNet is conditioned on.
        motion_scale: see `Conditioning`.
        branches: 2 where the first half of the batch are the negative prompts.
    """
    arrays, build = runtime.model("unet")

    def project(arrays: list[jax.Array], hidden: jax.Array) -> ProjectedText:
        unet: UNet3DConditionModel = build(arrays)
        return unet.project_text(hidden)

    # The reference rounds the sizes to the dtype of the embeddings.
    sizes = np.asarray([request.time_ids] * len(embeddings.pooled), runtime.precision.noise)
    arguments = (arrays, runtime.place(embeddings.hidden, video_sharding))
    out_shardings = None
    if runtime.mesh is not None:
        shapes = jax.eval_shape(project, *arguments)
        out_shardings = projected_text_shardings(runtime.mesh, shapes)
    program = runtime.program(
        "text projection", None, project, arguments, out_shardings=out_shardings
    )
    keys = None
    if embeddings.keys is not None and embeddings.pooled.shape[1] > 1:
        weights = key_weights(embeddings.keys, request.video_length, closed=request.closed)
        keys = runtime.place(weights, video_sharding)
    return Conditioning(
        program(*arguments),
        runtime.place(embeddings.pooled, video_sharding),
        runtime.place(sizes.astype(np.float32), batch_sharding),
        list(controls),
        keys,
        motion_scale,
        branches,
    )
