"""One batch: what is wanted of each of its clips, and how they are put together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.buckets import Size, fit_to_bucket
from hotshot_jax.data.clip_source import EncodedClip
from hotshot_jax.errors import HotshotError


class PreparationError(HotshotError):
    """A clip cannot be prepared through no fault of its own: it is not skipped as a bad one."""


@dataclass(frozen=True)
class ClipRequest:
    """A clip and what is wanted of it.

    Attributes:
        clip: its frames, not yet decoded.
        frames: which of them.
        size: (width, height) of its bucket.
    """

    clip: EncodedClip
    frames: range
    size: Size


@dataclass(frozen=True)
class Batch:
    """Clips of one bucket.

    Attributes:
        arrays: what `prepare` made of the clips, stacked: by default `frames`, uint8
            [batch, frames, height, width, 3].
        time_ids: float32 [batch, 6], see `buckets.time_ids`.
        prompts: one a clip.
        samples: names of the clips, for messages.
        indices: int64 [batch], the clips' places in the source.
        first_frames: int64 [batch], the first of the chosen frames of each clip.
        size: (width, height) of the bucket.
        number: of the batch, counted from 0 over all epochs.
        epoch: the pass over the data that it belongs to, counted from 0.
        skipped: messages about clips that could not be read and were replaced.
    """

    arrays: Mapping[str, npt.NDArray[Any]]
    time_ids: npt.NDArray[np.float32]
    prompts: tuple[str, ...]
    samples: tuple[str, ...]
    indices: npt.NDArray[np.int64]
    first_frames: npt.NDArray[np.int64]
    size: Size
    number: int
    epoch: int
    skipped: tuple[str, ...]

    @property
    def frames(self) -> npt.NDArray[np.uint8]:
        """uint8 [batch, frames, height, width, 3]."""
        return self.arrays["frames"]


Arrays = Mapping[str, npt.NDArray[Any] | Sequence[npt.NDArray[Any]]]
"""Named arrays of a clip. A sequence of arrays stands for their stack, which is then made once."""

Prepare = Callable[[ClipRequest], Arrays]


def decode_frames(request: ClipRequest) -> dict[str, list[npt.NDArray[np.uint8]]]:
    """Decode the wanted frames of a clip and fit them to its bucket.

    Returns:
        `frames`: as many of uint8 [height, width, 3].

    Raises:
        HotshotError: a frame cannot be read, or their sizes differ.
    """
    frames = []
    first: tuple[int, ...] | None = None
    for index in request.frames:
        picture = request.clip.frame(index)
        first = first or picture.shape
        if picture.shape != first:
            raise HotshotError(
                f"{request.clip.picture_names[index]}: is {picture.shape[1]}x{picture.shape[0]} "
                f"pixels, but the frames before it are {first[1]}x{first[0]}"
            )
        frames.append(fit_to_bucket(picture, request.size))
    return {"frames": frames}


@dataclass(frozen=True)
class Element:
    """A clip on its way into a batch; attributes as those of `Batch`."""

    arrays: Arrays
    time_ids: npt.NDArray[np.float32]
    prompt: str
    sample: str
    index: int
    first_frame: int
    size: Size
    number: int
    epoch: int
    skipped: tuple[str, ...]


def _stacked(
    clips: Sequence[npt.NDArray[Any] | Sequence[npt.NDArray[Any]]],
) -> npt.NDArray[Any]:
    first = clips[0]
    if isinstance(first, np.ndarray):
        return np.stack([np.asarray(clip) for clip in clips])
    stacked = np.empty((len(clips), len(first), *first[0].shape), first[0].dtype)
    for place, parts in enumerate(clips):
        np.stack(list(parts), out=stacked[place])
    return stacked


def stack(elements: Sequence[Element]) -> Batch:
    """Make a batch of clips that are of one bucket."""
    first = elements[0]
    return Batch(
        arrays={
            name: _stacked([element.arrays[name] for element in elements]) for name in first.arrays
        },
        time_ids=np.stack([element.time_ids for element in elements]),
        prompts=tuple(element.prompt for element in elements),
        samples=tuple(element.sample for element in elements),
        indices=np.array([element.index for element in elements], np.int64),
        first_frames=np.array([element.first_frame for element in elements], np.int64),
        size=first.size,
        number=first.number,
        epoch=first.epoch,
        skipped=tuple(message for element in elements for message in element.skipped),
    )
