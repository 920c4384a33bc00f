"""What is said at single frames, and what the frames between them have of it.

Between two key frames both are blended, in proportion to the distance; before the first and after
the last one key holds alone. In a closed clip the last key is followed by the first.
"""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.errors import UsageError
from hotshot_jax.models.unet.encoder import take_frames

Number = float | Mapping[int, float]
"""One number for all frames, or numbers at key frames."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class KeyBlend:
    """Which two keys each frame blends, and how much of each.

    Attributes:
        keys: int32 `[batch, frames, 2]`, places on an axis of keys.
        weights: float32 `[batch, frames, 2]`.
    """

    keys: jax.Array
    weights: jax.Array

    def at_frames(self, indices: ArrayLike) -> "KeyBlend":
        """The part of some frames.

        Args:
            indices: int `[frames]` or `[windows, frames]`, see `take_frames`.
        """
        return jax.tree.map(lambda array: take_frames(array, indices, axis=1), self)

    def __call__(self, values: jax.Array, *, axis: int) -> jax.Array:
        """Blends values by frame; what has one key is left as it is.

        Args:
            values: `[..., batch, keys, ...]`; the batch may be the last part of this one's.
            axis: that of the keys.

        Returns:
            `[..., batch, frames, ...]` in the dtype of `values`.
        """
        if values.shape[axis] == 1:
            return values
        rows = values.shape[axis - 1]
        by_row = jnp.moveaxis(values, (axis - 1, axis), (0, 1))
        taken = by_row[jnp.arange(rows)[:, None, None], self.keys[-rows:]].astype(jnp.float32)
        weights = self.weights[-rows:].reshape(
            *self.weights[-rows:].shape, *[1] * (values.ndim - 2)
        )
        blended = (taken * weights).sum(2).astype(values.dtype)
        return jnp.moveaxis(blended, (0, 1), (axis - 1, axis))


def key_blend(keys: Sequence[Sequence[int]], frames: int, *, closed: bool) -> KeyBlend:
    """The blend of a batch.

    Args:
        keys: for each of the batch, its key frames in the order of their places.
        frames: of the clip.
        closed: whether the last frame is followed by the first.
    """
    rows = [
        [weights_of_frame(each, frame, frames, closed) for frame in range(frames)] for each in keys
    ]
    return KeyBlend(
        jnp.asarray([[row[:2] for row in each] for each in rows], jnp.int32),
        # 1 - t is formed in float64.
        jnp.asarray(np.asarray([[(1 - t, t) for _, _, t in each] for each in rows], np.float32)),
    )


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
            not isinstance(value, int | float)
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
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise UsageError(f"`{name}` names frame {key!r}; frames are counted from 0.")
        if frames is not None and key >= frames:
            raise UsageError(
                f"`{name}` names frame {key}; the frames of this clip are 0 to {frames - 1}."
            )
