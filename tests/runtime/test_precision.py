"""Dtypes by the reference's names."""

import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.choices import VAE_PRECISIONS
from hotshot_jax.errors import UsageError
from hotshot_jax.runtime.precision import Precision, VaePrecision


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


@pytest.mark.parametrize(
    ("platform", "force_upcast", "name", "matmul"),
    [
        ("tpu", True, "bf16x3", "high"),
        ("tpu", None, "bf16x3", "high"),
        ("gpu", True, "f32", "float32"),
        ("cpu", True, "f32", "float32"),
        ("tpu", False, "bf16", "default"),
        ("gpu", False, "bf16", "default"),
        ("cpu", False, "f32", "float32"),
    ],
)
def test_the_vae_follows_the_device_and_its_configuration(
    platform: str, force_upcast: bool | None, name: str, matmul: str
) -> None:
    found = Precision.named("f16", platform).of_vae(force_upcast=force_upcast)
    assert (found.name, found.matmul) == (name, matmul)
    assert found.compute == (jnp.bfloat16 if name == "bf16" else jnp.float32)


@pytest.mark.parametrize("name", VAE_PRECISIONS)
def test_what_is_asked_of_the_vae_goes_before_both(name: str) -> None:
    precision = Precision.named("f16", "tpu", name)
    assert precision.of_vae(force_upcast=False).name == name
    assert precision.of_vae(force_upcast=True).name == name


def test_three_passes_are_said_to_be_float32_where_they_are() -> None:
    assert VaePrecision.named("bf16x3", "tpu").description == "VAE bf16x3"
    assert "computed in float32" in VaePrecision.named("bf16x3", "gpu").description
    assert VaePrecision.named("f32", "gpu").description == "VAE f32"


def test_an_unknown_name_of_the_vae_lists_the_known() -> None:
    with pytest.raises(UsageError, match="f32, bf16x3, bf16"):
        Precision.named("f16", "cpu", "high")
