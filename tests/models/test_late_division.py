"""Attention that divides by the sum of its weights at the end; texts that TPUs copy by frame."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from hotshot_jax.models.layers.attention import Attention, Context, dot_product_attention
from hotshot_jax.models.layers.late_division import late_division_attention
from hotshot_jax.models.layers.layers import Layers

BF16 = jnp.bfloat16
# Weights and results are each rounded, by at most 2^-8; a twentieth more for float32 sums.
_ROUNDED_TWICE = 1.05 * 2 * 2.0**-8


def as_on_tpus(function: Any, *arrays: Any) -> Any:
    """Computes here what a program for a TPU would."""
    device = AbstractDevice(device_kind="a device", num_cores=1, platform="tpu")
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        traced, shapes = jax.make_jaxpr(function, return_shape=True)(*arrays)
    leaves = jax.core.eval_jaxpr(traced.jaxpr, traced.consts, *jax.tree.leaves(arrays))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("offset", [0.0, 3.0, -20.0])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 5.0])
def test_no_more_is_lost_than_by_rounding(scale: float, offset: float, seed: int) -> None:
    numbers = np.random.default_rng(seed)
    query, key, value = (
        jnp.asarray(factor * numbers.standard_normal((1, 2, 33, 2, 16)) + moved, BF16)
        for factor, moved in ((scale, 0.1 * offset), (scale, 0.1 * offset), (1.0, offset))
    )
    found = np.asarray(late_division_attention(query, key, value), np.float64)
    query, key, value = (np.asarray(each, np.float64) for each in (query, key, value))
    logits = np.einsum("bfqhc,bfkhc->bfhqk", query, key) / 4
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bfhqk,bfkhc->bfqhc", weights, value)
    most = _ROUNDED_TWICE * np.einsum("bfhqk,bfkhc->bfqhc", weights, np.abs(value))
    assert (np.abs(found - expected) <= most).all()


def test_gradients_are_those_of_softmax() -> None:
    numbers = np.random.default_rng(0)
    arrays = [jnp.asarray(numbers.standard_normal((2, 3, 9, 2, 16)), jnp.float32) for _ in range(4)]

    def gradients(attend: Any, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        return jax.grad(lambda *each: (attend(*each[:3]) * each[3]).sum(), (0, 1, 2))(*arrays)

    expected, found = (
        gradients(attend, *arrays) for attend in (dot_product_attention, late_division_attention)
    )
    for theirs, ours in zip(expected, found, strict=True):
        # float32 sums in another order.
        np.testing.assert_allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
def test_frames_with_copies_of_a_text_read_what_they_shared(weighted: bool) -> None:
    layers = Layers.create(nnx.Rngs(0), BF16, BF16)
    attention = Attention(32, 2, layers, context_channels=24)
    numbers = np.random.default_rng(0)
    x = jnp.asarray(numbers.standard_normal((2, 3, 10, 32)), BF16)
    text = jnp.asarray(numbers.standard_normal((2, 1, 7, 24)), BF16)
    first = attention.project_context(text)
    weight = jnp.asarray([[0.5], [2.0]]) if weighted else None
    contexts = [first, Context(first.value, first.key, weight)]
    expected = np.asarray(attention.read(x, contexts), np.float32)
    found = np.asarray(as_on_tpus(attention.read, x, contexts), np.float32)
    assert np.linalg.norm(found - expected) <= 2e-2 * np.linalg.norm(expected)


def test_texts_are_copied_on_tpus_in_bfloat16_alone() -> None:
    seen: list[tuple[int, ...]] = []

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        seen.append(key.shape)
        return query

    for dtype in (BF16, jnp.float32):
        attention = Attention(32, 2, Layers.create(nnx.Rngs(0), dtype, dtype), context_channels=24)
        attention.attend = attend
        x, text = jnp.zeros((2, 3, 10, 32), dtype), jnp.zeros((2, 1, 7, 24), dtype)
        contexts = [attention.project_context(text)]
        attention.read(x, contexts)
        as_on_tpus(attention.read, x, contexts)
    shared, copied = (2, 7, 2, 16), (2, 3, 7, 2, 16)
    assert seen == [shared, copied, shared, shared]
