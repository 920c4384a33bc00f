"""What is said at single frames, and what the frames between them have of it.

Between two key frames both are blended, in proportion to the distance; before the first and after
the last one key holds alone. In a closed clip the last key is followed by the first.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Integral, Real

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import UsageError

Number = float | Mapping[int, float]
"""One number for all frames, or numbers at key frames."""


def blend_keys(values: jax.Array, weights: jax.Array, *, axis: int) -> jax.Array:
    """Blends what is said at key frames; what has one key is left as it is.

    Args:
        values: `[..., batch, keys, ...]`; the batch may be the last part of that of `weights`.
        weights: float32 `[batch, frames, keys]`, from `key_weights`.
        axis: that of the keys.

    Returns:
        `[..., batch, frames, ...]` in the dtype of `values`.
    """
    if values.shape[axis] == 1:
        return values
    by_row = jnp.moveaxis(values, (axis - 1, axis), (0, 1))
    blended = jnp.einsum(
        "bfk,bk...->bf...",
        weights[-len(by_row) :],
        by_row.astype(jnp.float32),
        precision=jax.lax.Precision.HIGHEST,
    )
    return jnp.moveaxis(blended.astype(values.dtype), (0, 1), (axis - 1, axis))


def key_weights(keys: Sequence[Sequence[int]], frames: int, *, closed: bool) -> np.ndarray:
    """How much of each key each frame has.

    Args:
        keys: for each of a batch, its key frames in the order of their places.
        frames: of the clip.
        closed: whether the last frame is followed by the first.

    Returns:
        float32 `[batch, frames, keys]`, with as many keys as the longest has.
    """
    weights = np.zeros((len(keys), frames, max(map(len, keys))), np.float32)
    for of_row, places in zip(weights, keys, strict=True):
        for frame, of_frame in enumerate(of_row):
            first, second, share = weights_of_frame(places, frame, frames, closed)
            of_frame[second] = share
            # 1 - t is formed in float64.
            of_frame[first] += 1 - share
    return weights


def weights_of_frame(
    keys: Sequence[int], frame: int, frames: int, closed: bool
) -> tuple[int, int, float]:
    """The places of the keys before and after a frame, and the weight of the second.

    Args:
        keys: distinct key frames, in any order.
        frame: number of the frame.
        frames: of the clip.
        closed: whether the last frame is followed by the first.
    """
    order = sorted(range(len(keys)), key=lambda place: keys[place])
    before = [place for place in order if keys[place] <= frame]
    after = [place for place in order if keys[place] > frame]
    if not closed and not (before and after):
        only = before[-1] if before else after[0]
        return only, only, 0.0
    first = before[-1] if before else order[-1]
    second = after[0] if after else order[0]
    distance = (keys[second] - keys[first]) % frames
    if distance == 0:
        return first, first, 0.0
    return first, second, ((frame - keys[first]) % frames) / distance


def numbers_by_frame(number: Number, frames: int, *, closed: bool) -> np.ndarray:
    """A number for each frame, float32 `[frames]`."""
    if not isinstance(number, Mapping):
        return np.full(frames, number, np.float32)
    keys = list(number)
    values = [number[key] for key in keys]
    blends = (weights_of_frame(keys, frame, frames, closed) for frame in range(frames))
    return np.asarray([(1 - t) * values[a] + t * values[b] for a, b, t in blends], np.float32)


def shifted_keys(number: Number, by: int) -> Number:
    """The same numbers for a longer clip, in which this one begins at frame `by`."""
    if not isinstance(number, Mapping):
        return number
    return {frame + by: value for frame, value in number.items()}


def extremes(number: Number) -> tuple[float, float]:
    """The smallest and the largest value; those between keys lie between these."""
    values = list(number.values()) if isinstance(number, Mapping) else [number]
    return min(values), max(values)


def check_numbers(name: str, number: Number, frames: int | None, low: float) -> None:
    """Checks a number that may differ by frame.

    Args:
        name: of the setting, for messages.
        number: one number, or numbers at key frames.
        frames: of the clip; None if it is not known yet.
        low: the least that is allowed.

    Raises:
        UsageError: a key is no frame of the clip, or a value is not finite or too small.
    """
    if isinstance(number, Mapping):
        check_keys(name, number, frames)
        values: Iterable[float] = number.values()
    else:
        values = [number]
    for value in values:
        if (
            not isinstance(value, Real)
            or isinstance(value, bool)
            or not math.isfinite(value)
            or value < low
        ):
            raise UsageError(f"`{name}` is {value!r}; expected a number from {low:g}.")


def check_keys(name: str, keys: Iterable[int], frames: int | None) -> None:
    """Checks that key frames are frames of the clip, whose number may not be known yet.

    Raises:
        UsageError: there is none, or one lies outside the clip.
    """
    listed = list(keys)
    if not listed:
        raise UsageError(f"`{name}` has no key frame; give at least one.")
    for key in listed:
        if not isinstance(key, Integral) or isinstance(key, bool) or key < 0:
            raise UsageError(f"`{name}` names frame {key!r}; frames are counted from 0.")
        if frames is not None and key >= frames:
            raise UsageError(
                f"`{name}` names frame {key}; the frames of this clip are 0 to {frames - 1}."
            )
