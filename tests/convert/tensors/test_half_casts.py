import jax
import ml_dtypes
import numpy as np
import pytest

from hotshot_jax.convert.tensors.half_casts import to_dtype


def same_bits(one: np.ndarray, other: np.ndarray) -> None:
    assert one.dtype == other.dtype and one.shape == other.shape
    np.testing.assert_array_equal(one.view(np.uint8), other.view(np.uint8))


def test_every_float16_becomes_the_same_float32() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    numbers = every[~np.isnan(every)]
    padded = np.concatenate([numbers, numbers])
    same_bits(to_dtype(padded, np.float32), padded.astype(np.float32))


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_float32_is_rounded_the_same() -> None:
    random = np.random.default_rng(0)
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    halves = every[np.isfinite(every)].astype(np.float32)
    # Ties, what lies beside them, subnormal results, overflow, zeros and infinities.
    ties = (halves[1:] + halves[:-1]) / 2
    near = np.nextafter(ties, np.float32(0))
    wide = np.exp(random.uniform(-60, 60, 2**16)).astype(np.float32)
    special = np.float32([0.0, -0.0, np.inf, -np.inf, 65519.0, 65520.0, 1e-45, 2**-25])
    numbers = np.concatenate([halves, ties, near, wide, -wide, special])
    same_bits(to_dtype(numbers, np.float16), numbers.astype(np.float16))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_order_of_axes_is_kept(order: str) -> None:
    array = np.asarray(np.random.default_rng(0).normal(size=(300, 400)), np.float16, order=order)
    converted = to_dtype(array, np.float32)
    assert converted.flags.c_contiguous == (order == "C")
    np.testing.assert_array_equal(converted, array.astype(np.float32))


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ml_dtypes.bfloat16])
def test_other_types_and_views(dtype: type) -> None:
    array = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    same_bits(to_dtype(array[:, ::2], dtype), array[:, ::2].astype(dtype))
    same_bits(to_dtype(array, dtype), array.astype(dtype))
    assert to_dtype(array, np.float32) is array


def test_where_a_mesh_is_in_force() -> None:
    array = np.random.default_rng(0).normal(size=(300, 400)).astype(np.float32)
    with jax.set_mesh(jax.make_mesh((1,), ("data",))):
        same_bits(to_dtype(array, np.float16), array.astype(np.float16))


def test_the_result_can_be_written_to() -> None:
    assert to_dtype(np.zeros((300, 400), np.float16), np.float32).flags.writeable
