"""Long clips and loops: the model sees windows of frames, and what it says of them is joined."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.models.layers.sharding_points import split_videos
from hotshot_jax.models.unet.encoder import take_frames
from hotshot_jax.sampling.predict import Conditioning, Predictor, StepInput, WindowBatch
from hotshot_jax.sampling.windows import ContextConfig, Window


@dataclasses.dataclass(frozen=True)
class WindowedPredictor:
    """Predicts windows of frames, and adds up what overlaps by their weights.

    Of each window the inner predictor sees the frames in the window's order, with the part of the
    conditioning that is theirs. Every row of the batch is joined by itself, before guidance.

    Attributes:
        inner: predicts a batch of windows.
    """

    inner: Predictor

    def __call__(
        self, latents: jax.Array, step: StepInput, conditioning: Conditioning, cache: Any
    ) -> tuple[jax.Array, Any]:
        """See `Predictor`; the cache has an entry for each of `step.windows`, by turn."""
        within = dataclasses.replace(step, windows=())

        def predict(indices: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
            frames = split_videos(take_frames(latents, indices, axis=1))
            return self.inner(frames, within, conditioning.at_frames(indices), cache)

        joined, kept = jnp.zeros_like(latents), []
        for index, batch in enumerate(step.windows):
            indices, weights = jnp.asarray(batch.indices), jnp.asarray(batch.weights)
            known = cache[index] if cache else ()
            if len(indices) == 1:
                predicted, left = predict(indices[0], jax.tree.map(lambda leaf: leaf[0], known))
                predicted, left = jax.tree.map(lambda leaf: leaf[None], (predicted, left))
            else:
                _, (predicted, left) = jax.lax.scan(
                    lambda _, each: ((), predict(*each)), (), (indices, known)
                )
            joined = joined + _joined(predicted, indices, weights, latents.shape)
            kept.append(left)
        return joined, kept


def _joined(
    predicted: jax.Array, indices: jax.Array, weights: jax.Array, shape: tuple[int, ...]
) -> jax.Array:
    """Weighted sums by frame.

    A product with a matrix: where windows lie on several devices, only its result is added up over
    them, and nothing is gathered.

    Args:
        predicted: `[turns, batch * windows, length, height, width, channels]`.
        indices: `[turns, windows, length]`.
        weights: likewise.
        shape: of the result, `[batch, frames, height, width, channels]`.
    """
    turns, windows, length = indices.shape
    batch, frames = shape[:2]
    places = jnp.arange(frames)[:, None, None, None]
    matrix = jnp.where(places == indices, weights, 0.0)
    by_window = predicted.reshape(turns, batch, windows, length, -1)
    joined = jnp.einsum("ftwl,tbwlx->bfx", matrix, by_window, precision=jax.lax.Precision.HIGHEST)
    return joined.reshape(shape)


def window_plan(
    context: ContextConfig | None, frames: int, steps: int, at_once: int, multiple: int = 1
) -> list[tuple[WindowBatch, ...]]:
    """The windows of every step of a run.

    All steps have as many of each length, so that one program serves them: where a step has fewer,
    its first window is repeated with weights of 0.

    Args:
        context: how the clip is divided; None for not at all.
        frames: of the clip.
        steps: of the run.
        at_once: windows that are predicted at once, at most.
        multiple: what their number has to be a multiple of, so that a batch of them divides over
            the devices of a mesh.

    Returns:
        For each step, its windows by length; nothing where the model sees the clip as it is.

    Raises:
        UsageError: a frame is in no window.
    """
    if context is None or not context.divides(frames):
        return [()] * steps
    of_steps = [context.windows(frames, step) for step in range(steps)]
    most: dict[int, int] = {}
    for windows in of_steps:
        for length in {len(window) for window in windows}:
            count = sum(len(window) == length for window in windows)
            most[length] = max(count, most.get(length, 0))
    turns = {length: _turns(count, at_once, multiple) for length, count in most.items()}
    plan = []
    for windows in of_steps:
        weights = context.weights(windows, frames)
        plan.append(tuple(_batch(windows, weights, *each) for each in turns.items()))
    return plan


def _turns(count: int, at_once: int, multiple: int) -> tuple[int, int]:
    """How many turns windows take, and how many are in each, with as few too many as can be."""
    most = max(at_once // multiple, 1) * multiple
    turns = -(-count // most)
    return turns, -(-count // (turns * multiple)) * multiple


def _batch(
    windows: Sequence[Window],
    weights: Sequence[np.ndarray],
    length: int,
    turns: tuple[int, int],
) -> WindowBatch:
    of_length = [index for index, window in enumerate(windows) if len(window) == length]
    indices = np.zeros((math.prod(turns), length), np.int32)
    shares = np.zeros((math.prod(turns), length), np.float32)
    indices[:] = windows[of_length[0]]
    for place, index in enumerate(of_length):
        indices[place], shares[place] = windows[index], weights[index]
    shape = (*turns, length)
    return WindowBatch(indices.reshape(shape), shares.reshape(shape))
