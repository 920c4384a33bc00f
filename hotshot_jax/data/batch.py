"""Batches: which clips make up which, what is wanted of each, and how they are put together.

What stands where is a function of the seed and the batch's number alone. Nothing is drawn or stored
as training goes on, so that a run can go on at any batch, on any number of hosts, and memory holds
four bytes a clip."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
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
        caption: what it is trained on in place of its own prompt; None for that.
        corner: left and upper edge of the crop, see `buckets.fit_to_bucket`.
        mirrored: whether left and right are exchanged, before it is cropped.
    """

    clip: EncodedClip
    frames: range
    size: Size
    caption: str | None = None
    corner: tuple[int, int] | None = None
    mirrored: bool = False

    @property
    def prompt(self) -> str:
        """The caption that it is trained on."""
        return self.clip.prompt if self.caption is None else self.caption


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
        if request.mirrored:
            picture = np.ascontiguousarray(picture[:, ::-1])
        frames.append(fit_to_bucket(picture, request.size, request.corner))
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


_ROUNDS = 6
_WORD = (1 << 64) - 1


def permuted(index: int, length: int, seed: tuple[int, ...]) -> int:
    """Where the permutation of `range(length)` that belongs to a seed takes an index.

    A Feistel network over the next even number of bits, repeated until it lands inside the length
    (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", 2002), so that it needs no memory.
    It is for shuffling, not for secrets.

    Args:
        index: from 0 to `length` - 1.
        length: at least 1.
        seed: non-negative integers.

    Raises:
        IndexError: the index lies outside.
    """
    if not 0 <= index < length:
        raise IndexError(f"index {index} of a permutation of {length}")
    half = max(1, ((length - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    keys = _round_keys(seed)
    while True:
        left, right = index >> half, index & mask
        for key in keys:
            left, right = right, left ^ (_mixed(right ^ key) & mask)
        index = left << half | right
        if index < length:
            return index


def _mixed(word: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): each bit in moves each bit out."""
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ word >> 27) * 0x94D049BB133111EB & _WORD
    return word ^ word >> 31


@lru_cache(maxsize=256)
def _round_keys(seed: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(np.random.SeedSequence(seed).generate_state(_ROUNDS, np.uint64).tolist())


class BatchPlan:
    """A global shuffle of clips into batches of one bucket each.

    In each epoch the clips of every bucket are shuffled and cut into batches, and the batches of
    all buckets are shuffled. A last batch that is not full is filled up with clips from the
    beginning of its bucket's order, so that every clip is seen in every epoch and all batches of a
    bucket have one shape.

    Args:
        buckets: uint8 [samples], the bucket of each clip.
        batch_size: clips a batch, over all hosts.
        seed: another seed gives another order.
    """

    def __init__(self, buckets: npt.NDArray[np.uint8], batch_size: int, seed: int) -> None:
        if batch_size < 1 or not len(buckets):
            raise ValueError(f"{len(buckets)} clips cannot fill batches of {batch_size}")
        self.batch_size = batch_size
        self._seed = seed
        # Clip numbers sorted by bucket; `_starts` marks where each bucket begins.
        self._clips = np.argsort(buckets, kind="stable").astype(np.uint32)
        counts = np.bincount(buckets)
        self._counts = counts.tolist()
        self._starts = np.cumsum([0, *self._counts]).tolist()
        self._ends = np.cumsum(-(-counts // batch_size))
        self.batches_per_epoch = int(self._ends[-1])

    def __len__(self) -> int:
        return len(self._clips)

    def used_buckets(self) -> list[int]:
        """The buckets that hold a clip."""
        return [bucket for bucket, count in enumerate(self._counts) if count]

    def count(self, bucket: int) -> int:
        """How many clips a bucket holds."""
        return self._counts[bucket]

    def locate(self, batch: int) -> tuple[int, int, int]:
        """(epoch, bucket, number among the bucket's batches in that epoch) of a batch."""
        epoch, position = divmod(batch, self.batches_per_epoch)
        shuffled = permuted(position, self.batches_per_epoch, (self._seed, epoch))
        bucket = int(np.searchsorted(self._ends, shuffled, side="right"))
        before = int(self._ends[bucket - 1]) if bucket else 0
        return epoch, bucket, shuffled - before

    def clip(self, batch: int, slot: int, substitute: int = 0) -> int:
        """The clip in a slot of a batch.

        Args:
            batch: number of the batch, counted over all epochs.
            slot: place in the batch, from 0 to `batch_size` - 1.
            substitute: how many places further in the bucket's order to look, for when the clip
                itself cannot be read.
        """
        epoch, bucket, number = self.locate(batch)
        count = self._counts[bucket]
        place = (number * self.batch_size + slot + substitute) % count
        shuffled = permuted(place, count, (self._seed, epoch, bucket))
        return int(self._clips[self._starts[bucket] + shuffled])
