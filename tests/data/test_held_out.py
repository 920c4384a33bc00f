"""A share of the data that is held out: which clips, and what is left of the mix."""

import numpy as np
import pytest

from hotshot_jax.data.mixing.held_out import hold_out
from hotshot_jax.data.mixing.joined import JoinedData, open_joined
from hotshot_jax.errors import UsageError

SHAPES = "shapes:train?length={}&seed={}&size=16"


def opened(*lengths: int, end: str = "") -> JoinedData:
    texts = [SHAPES.format(length, seed) + end for seed, length in enumerate(lengths)]
    return open_joined(texts, frames=2)


def names(data: JoinedData) -> list[str]:
    return [data.opened.source[place].name for place in range(len(data.opened.source))]


def test_no_clip_is_on_both_sides_and_none_is_lost() -> None:
    data = opened(400)
    training, held_out = hold_out(data, 0.1)
    left = [held_out.source[place].name for place in range(len(held_out.source))]
    assert sorted(names(training) + left) == sorted(names(data))
    # Binomial with 400 and 0.1: within four deviations of six.
    assert 16 < len(left) < 64
    assert training.opened.total == len(training.opened.source)
    np.testing.assert_array_equal(
        training.opened.source.table, data.opened.source.table[: len(names(training))]
    )


def test_clips_that_are_added_change_nothing_for_the_others() -> None:
    few, many = hold_out(opened(100), 0.2)[0], hold_out(opened(150), 0.2)[0]
    before = set(names(opened(100)))
    assert [name for name in names(many) if name in before] == names(few)


def test_each_data_set_of_a_mix_is_divided() -> None:
    data = opened(200, 100, end="&repeats=2")
    training, held_out = hold_out(data, 0.25)
    assert training.mix is not None and data.mix is not None
    counts = [part.clips for part in training.mix]
    assert sum(counts) == len(training.opened.source) == 300 - len(held_out.source)
    assert [part.repeats for part in training.mix] == [2, 2]
    assert 120 < counts[0] < 180 and 50 < counts[1] < 95


def test_at_least_one_clip_is_held_out_and_one_is_trained_on() -> None:
    training, held_out = hold_out(opened(3), 1e-6)
    assert (len(training.opened.source), len(held_out.source)) == (2, 1)
    with pytest.raises(UsageError, match="leaves nothing to train on"):
        hold_out(opened(1), 0.5)
