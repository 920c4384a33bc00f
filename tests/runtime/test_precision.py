"""Dtypes by the reference's names."""

import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.runtime.precision import Precision


@pytest.mark.parametrize(
    ("name", "platform", "noise", "compute"),
    [
        ("f16", "gpu", jnp.float16, jnp.float16),
        ("f16", "tpu", jnp.float16, jnp.bfloat16),
        ("f16", "cpu", jnp.float16, jnp.float32),
        ("bf16", "cpu", jnp.bfloat16, jnp.bfloat16),
        ("f32", "gpu", jnp.float32, jnp.float32),
    ],
)
def test_random_numbers_follow_the_name_and_arithmetic_the_device(
    name: str, platform: str, noise: type, compute: type
) -> None:
    precision = Precision.named(name, platform)
    assert precision.noise == np.dtype(noise)
    assert precision.compute == compute


def test_full_products_are_asked_for_only_where_float32_is_meant() -> None:
    assert Precision.named("f32", "tpu").matmul == "float32"
    assert Precision.named("bf16", "tpu").matmul is None


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match="f16, f32, bf16"):
        Precision.named("fp16", "cpu")
