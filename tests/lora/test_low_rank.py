import itertools

import jax
import ml_dtypes
import numpy as np
import pytest
from lora_cases import normal

from hotshot_jax.lora import merge_tensor
from hotshot_jax.lora.changes import Added, Difference, LowRank
from hotshot_jax.lora.merge import add_product, joined_factors

# Large enough that a program is compiled for them.
SHAPE = (260, 280)
ULP = {np.dtype(np.float32): 2.0**-23, np.dtype(np.float16): 2.0**-10}
ULP[np.dtype(ml_dtypes.bfloat16)] = 2.0**-7


@pytest.fixture(scope="module")
def changes():
    """Two of different ranks, of which one is no power of two, and neither is float32."""
    factors = [
        (normal(rank, SHAPE[1], seed=rank), normal(SHAPE[0], rank, seed=rank + 1))
        for rank in (3, 8)
    ]
    narrow = [[each.astype(np.float16) for each in pair] for pair in factors]
    return [(Added(LowRank(*narrow[0], 0.5)), 0.6), (Added(LowRank(*narrow[1], 1.0)), -1.0)]


def exact(weight, changes):
    total = weight.astype(np.float64)
    for change, scale in changes:
        product = change.difference
        total = total + scale * product.scaling * (product.up.astype(np.float64) @ product.down)
    return total


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", list(ULP), ids=lambda dtype: dtype.name)
def test_equals_a_direct_sum(changes, dtype, order):
    weight = np.asarray(normal(*SHAPE), dtype, order=order)
    merged = merge_tensor(weight, changes, dtype)
    assert merged.dtype == dtype and merged.shape == SHAPE
    expected = exact(weight, changes)
    # Rounded once to its type, after float32 sums of eleven products of order 10.
    bound = ULP[dtype] / 2 * np.abs(expected) + 1e-5
    assert (np.abs(merged.astype(np.float64) - expected) <= bound).all()


def test_numpy_gives_the_same_where_a_mesh_is_in_force(changes):
    weight = normal(*SHAPE).astype(np.float16)
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        assert add_product(weight, joined_factors(changes), np.float32) is None
        by_numpy = merge_tensor(weight, changes)
    np.testing.assert_allclose(merge_tensor(weight, changes), by_numpy, atol=1e-5)


def test_kernels_in_the_models_own_order():
    """HWIO, seen as OIHW."""
    weight = normal(3, 3, 64, 128).transpose(3, 2, 0, 1)
    change = LowRank(normal(4, 64, 3, 3), normal(128, 4, 1, 1), 1.0)
    expected = np.einsum("or,rihw->oihw", change.up[:, :, 0, 0], change.down) + weight
    np.testing.assert_allclose(merge_tensor(weight, [(Added(change), 1.0)]), expected, atol=1e-5)


def test_what_is_no_product_of_two_matrices():
    low_rank = Added(LowRank(normal(2, 5), normal(4, 2), 1.0))
    mid = Added(LowRank(normal(2, 5, 1, 1), normal(4, 2, 1, 1), 1.0, normal(2, 2, 3, 3)))
    others = (mid, Added(Difference(normal(4, 5))))
    assert joined_factors([(low_rank, 1.0)]) is not None
    for pair in itertools.product((low_rank,), others):
        assert joined_factors([(change, 1.0) for change in pair]) is None
