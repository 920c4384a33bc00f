"""Batches of several data sets in given shares.

A cycle of batches has each bucket, and each bucket each data set, as often as the shares ask, to a
batch and a clip. Within it they are spread evenly but for a random shift of each, so that every
stretch of training has the shares too. Of each data set the clips of a bucket follow one another in
shuffled passes, in which none comes twice, over the ends of epochs and cycles.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.batch import permuted

# Batches: with so many, rounding to whole ones changes no share by more than a ten thousandth. Of
# large batches there are fewer, since a cycle's clips are kept in memory.
_LEAST_CYCLE: Final = 1 << 13
_LEAST_CYCLE_OF_LARGE: Final = 1 << 8
_CLIPS_OF_CYCLE: Final = 1 << 21


@dataclass(frozen=True)
class Part:
    """A data set among others.

    Attributes:
        clips: how many it has.
        repeats: how often an epoch has each of its clips.
        weight: its share of all clips that are drawn, over the sum of all weights; None where
            repeats count.
    """

    clips: int
    repeats: int = 1
    weight: float | None = None


class MixedPlan:
    """Which clip stands where, as `BatchPlan`.

    An epoch is as many batches as hold all clips, each as often as its data set is repeated, or
    once where weights are given.

    Args:
        buckets: uint8 [samples], the bucket of each clip, one data set after the other.
        parts: the data sets.
        batch_size: clips a batch, over all hosts.
        seed: another seed gives another order.
    """

    def __init__(
        self,
        buckets: npt.NDArray[np.uint8],
        parts: Sequence[Part],
        batch_size: int,
        seed: int,
    ) -> None:
        lengths = np.array([part.clips for part in parts])
        if batch_size < 1 or not len(buckets) or lengths.sum() != len(buckets):
            raise ValueError(f"{len(buckets)} clips cannot fill batches of {batch_size}")
        self.batch_size = batch_size
        self._seed = seed
        weighted = any(part.weight is not None for part in parts)
        items = lengths if weighted else lengths * [part.repeats for part in parts]
        shares = np.array(
            [1.0 if part.weight is None else part.weight for part in parts] if weighted else items,
            float,
        )
        self.batches_per_epoch = math.ceil(int(items.sum()) / batch_size)
        owners = np.repeat(np.arange(len(parts)), lengths)
        # Clips by bucket, those of a bucket by data set; a group is what shares both.
        order = np.lexsort((owners, buckets))
        self._clips = order.astype(np.uint32)
        keys = buckets[order].astype(np.int64) * len(parts) + owners[order]
        groups, starts, counts = np.unique(keys, return_index=True, return_counts=True)
        self._starts, self._counts = starts.tolist(), counts.tolist()
        group_buckets, group_parts = np.divmod(groups, len(parts))
        group_shares = shares[group_parts] / shares.sum() * counts / lengths[group_parts]
        self._buckets = np.unique(group_buckets).tolist()
        self._groups = [np.flatnonzero(group_buckets == each).tolist() for each in self._buckets]
        of_large = max(_LEAST_CYCLE_OF_LARGE, _CLIPS_OF_CYCLE // batch_size)
        cycle = max(self.batches_per_epoch, min(_LEAST_CYCLE, of_large))
        self._batches = _apportioned([group_shares[g].sum() for g in self._groups], cycle)
        self._items = [
            _apportioned(group_shares[g], batches * batch_size)
            for g, batches in zip(self._groups, self._batches, strict=True)
        ]
        self._cycle = sum(self._batches)

    def __len__(self) -> int:
        return len(self._clips)

    def used_buckets(self) -> list[int]:
        """The buckets that hold a clip."""
        return list(self._buckets)

    def count(self, bucket: int) -> int:
        """How many clips a bucket holds."""
        if bucket not in self._buckets:
            return 0
        return sum(self._counts[group] for group in self._groups[self._buckets.index(bucket)])

    def locate(self, batch: int) -> tuple[int, int, int]:
        """(epoch, bucket, number among the bucket's batches in that cycle) of a batch."""
        place, number = self._place(batch)
        return batch // self.batches_per_epoch, self._buckets[place], number

    def clip(self, batch: int, slot: int, substitute: int = 0) -> int:
        """The clip in a slot of a batch; arguments as `BatchPlan.clip`."""
        place, number = self._place(batch)
        cycle = batch // self._cycle
        labels, ranks = _spread(self._items[place], (self._seed, cycle, 1 + place))
        item = number * self.batch_size + slot
        label = int(labels[item])
        group = self._groups[place][label]
        count, start = self._counts[group], self._starts[group]
        if substitute >= count:
            # Its data set has no other: one of the others in the bucket.
            bucket_start = self._starts[self._groups[place][0]]
            total = sum(self._counts[each] for each in self._groups[place])
            return int(self._clips[bucket_start + (start - bucket_start + substitute) % total])
        of_pass, within = divmod(cycle * self._items[place][label] + int(ranks[item]), count)
        within = (within + substitute) % count
        shuffled = permuted(within, count, (self._seed, of_pass, place, label))
        return int(self._clips[start + shuffled])

    def _place(self, batch: int) -> tuple[int, int]:
        """Which of the used buckets a batch is of, and its number among those of the cycle."""
        cycle, position = divmod(batch, self._cycle)
        labels, ranks = _spread(self._batches, (self._seed, cycle, 0))
        return int(labels[position]), int(ranks[position])


def _apportioned(shares: Sequence[float] | npt.NDArray[np.float64], total: int) -> tuple[int, ...]:
    """Whole numbers in given shares that sum to a total, by largest remainder, each at least 1.

    Where there are more shares than the total, the sum is larger.
    """
    exact = np.asarray(shares, float) / np.sum(shares) * total
    whole = np.maximum(np.floor(exact).astype(np.int64), 1)
    left = total - int(whole.sum())
    if left > 0:
        whole[np.argsort(whole - exact, kind="stable")[:left]] += 1
    return tuple(whole.tolist())


@lru_cache(maxsize=64)
def _spread(
    counts: tuple[int, ...], seed: tuple[int, ...]
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint32]]:
    """A sequence that has each label as often as its count says, evenly but for chance.

    Returns:
        uint16 and uint32 [sum of counts]: the labels, and how often each stood before.
    """
    random = np.random.default_rng(seed)
    times = np.concatenate([(np.arange(n) + random.random(n)) / n for n in counts])
    order = np.argsort(times, kind="stable")
    labels = np.repeat(np.arange(len(counts), dtype=np.uint16), counts)[order]
    ranks = np.concatenate([np.arange(n, dtype=np.uint32) for n in counts])[order]
    return labels, ranks
