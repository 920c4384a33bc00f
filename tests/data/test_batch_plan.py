from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from hotshot_jax.data.batch import BatchPlan

BUCKETS = np.random.default_rng(0).choice([0, 3, 5], size=203, p=[0.7, 0.28, 0.02]).astype(np.uint8)


def epoch_clips(plan: BatchPlan, epoch: int) -> list[list[int]]:
    first = epoch * plan.batches_per_epoch
    return [
        [plan.clip(batch, slot) for slot in range(plan.batch_size)]
        for batch in range(first, first + plan.batches_per_epoch)
    ]


def test_every_clip_is_in_every_epoch_and_batches_hold_one_bucket() -> None:
    plan = BatchPlan(BUCKETS, 8, seed=1)
    assert plan.used_buckets() == [0, 3, 5]
    for epoch in range(3):
        batches = epoch_clips(plan, epoch)
        seen = Counter(clip for batch in batches for clip in batch)
        assert sorted(seen) == list(range(len(BUCKETS)))
        # Filling the last batch of a bucket takes fewer clips than a batch.
        assert sum(seen.values()) - len(seen) < 8 * len(plan.used_buckets())
        for number, batch in enumerate(batches):
            found_epoch, bucket, _ = plan.locate(epoch * plan.batches_per_epoch + number)
            assert found_epoch == epoch
            assert {int(BUCKETS[clip]) for clip in batch} == {bucket}


def test_epochs_and_seeds_differ_and_repeat() -> None:
    plan = BatchPlan(BUCKETS, 8, seed=1)
    first = epoch_clips(plan, 0)
    assert first == epoch_clips(BatchPlan(BUCKETS, 8, seed=1), 0)
    assert first != epoch_clips(plan, 1)
    assert first != epoch_clips(BatchPlan(BUCKETS, 8, seed=2), 0)


def test_buckets_are_mixed_over_the_epoch() -> None:
    plan = BatchPlan(np.repeat(np.array([0, 1], np.uint8), 400), 4, seed=0)
    order = [plan.locate(batch)[1] for batch in range(plan.batches_per_epoch)]
    # Of 200 shuffled batches of two kinds about half differ from the one before.
    assert 70 < sum(a != b for a, b in pairwise(order)) < 130


def test_the_shuffle_leaves_no_trace_of_the_order() -> None:
    plan = BatchPlan(np.zeros(1000, np.uint8), 1, seed=0)
    order = np.array([plan.clip(batch, 0) for batch in range(1000)])
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
    assert (np.abs(np.diff(order)) == 1).sum() < 10


def test_one_clip_fills_a_batch() -> None:
    plan = BatchPlan(np.zeros(1, np.uint8), 4, seed=0)
    assert plan.batches_per_epoch == 1
    assert [plan.clip(7, slot) for slot in range(4)] == [0] * 4


def test_substitutes_go_once_round_the_bucket() -> None:
    plan = BatchPlan(BUCKETS, 8, seed=1)
    count = plan.count(plan.locate(0)[1])
    clips = [plan.clip(0, 3, substitute) for substitute in range(count)]
    assert len(set(clips)) == count and {BUCKETS[clip] for clip in clips} == {BUCKETS[clips[0]]}


def test_memory_is_a_few_bytes_a_clip() -> None:
    plan = BatchPlan(np.zeros(10**6, np.uint8), 8, seed=1)
    assert plan._clips.nbytes == 4 * 10**6
    assert 0 <= plan.clip(12345678, 3) < 10**6


def test_nothing_to_plan_is_refused() -> None:
    with pytest.raises(ValueError, match="0 clips"):
        BatchPlan(np.zeros(0, np.uint8), 8, seed=1)
