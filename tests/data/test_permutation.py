from collections import Counter

import numpy as np
import pytest

from hotshot_jax.data.batch import permuted


@pytest.mark.parametrize("length", [1, 2, 3, 5, 16, 17, 255, 1000, 4097])
def test_it_is_a_permutation(length: int) -> None:
    assert sorted(permuted(i, length, (3, 1)) for i in range(length)) == list(range(length))


def test_it_is_fixed_by_its_seed() -> None:
    # A change here would silently reorder every run that is resumed.
    assert [permuted(i, 10, (0,)) for i in range(10)] == FIXED
    assert [permuted(i, 10, (1,)) for i in range(10)] != FIXED


FIXED = [0, 5, 3, 7, 6, 1, 9, 8, 4, 2]


def test_every_place_is_equally_likely() -> None:
    counts = Counter(permuted(0, 5, (seed,)) for seed in range(2000))
    # 400 expected, standard deviation 18.
    assert all(abs(counts[place] - 400) < 90 for place in range(5))


def test_neighbours_are_parted() -> None:
    order = np.array([permuted(i, 10**6, (7,)) for i in range(2000)])
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1
    assert abs(order.mean() / 10**6 - 0.5) < 0.03
    assert len(set(order.tolist())) == 2000


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_is_refused(index: int) -> None:
    with pytest.raises(IndexError):
        permuted(index, 4, (0,))
