"""Which clips make up which batch: a function of the seed and the batch's number alone.

Nothing is drawn or stored as training goes on, so that a run can go on at any batch, on any number
of hosts, and memory holds four bytes a clip.
"""

import numpy as np
import numpy.typing as npt

from hotshot_jax.data.permutation import permuted


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
        self._counts = [int(count) for count in counts]
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
