"""What norms, gates and attention keep for their gradients, and that the gradients stay."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AbstractDevice, AbstractMesh, AxisType

from hotshot_jax.models.layers.attention import dot_product_attention
from hotshot_jax.models.layers.feed_forward import GEGLU
from hotshot_jax.models.layers.layers import Layers
from hotshot_jax.models.layers.normalization import LayerNorm

BF16, F32 = jnp.bfloat16, jnp.float32
HEADS = (2, 3, 8, 4, 80)
NARROW_HEADS = (2, 3, 8, 4, 40)


@contextlib.contextmanager
def compiled_for(platform: str) -> Iterator[None]:
    """As in a program for another device than this machine's."""
    device = AbstractDevice(device_kind="a device", num_cores=1, platform=platform)
    mesh = AbstractMesh((1,), ("data",), (AxisType.Auto,), abstract_device=device)
    with jax.sharding.use_abstract_mesh(mesh):
        yield


def layer_norm(dtype: Any) -> tuple[Callable[..., jax.Array], list[tuple[int, ...]]]:
    norm = LayerNorm(24, epsilon=1e-5, dtype=dtype, param_dtype=dtype)
    norm.scale[...] = jnp.linspace(0.5, 2, 24, dtype=dtype)
    return norm, [(2, 5, 24)]


def gate(dtype: Any) -> tuple[Callable[..., jax.Array], list[tuple[int, ...]]]:
    return GEGLU(24, 48, Layers.create(nnx.Rngs(0), dtype, dtype)), [(2, 5, 24)]


def attention(dtype: Any) -> tuple[Callable[..., jax.Array], list[tuple[int, ...]]]:
    del dtype
    return dot_product_attention, [HEADS] * 3


def narrow_attention(dtype: Any) -> tuple[Callable[..., jax.Array], list[tuple[int, ...]]]:
    del dtype
    return dot_product_attention, [NARROW_HEADS] * 3


LAYERS = (layer_norm, gate, attention, narrow_attention)


def arrays_of(shapes: list[tuple[int, ...]], dtype: Any) -> list[jax.Array]:
    numbers = np.random.default_rng(0)
    return [jnp.asarray(numbers.standard_normal(shape) + 0.5, dtype) for shape in shapes]


def kept(function: Callable[..., jax.Array], arrays: list[jax.Array]) -> list[Any]:
    """Shapes of the arrays, larger than parameters, that the gradients of a function start from."""
    leaves = jax.tree.leaves(jax.eval_shape(lambda *given: jax.vjp(function, *given)[1], *arrays))
    return [leaf for leaf in leaves if leaf.ndim > 2]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("platform", ["tpu", "gpu"])
def test_accelerators_keep_what_came_in_alone(layer: Callable[..., Any], platform: str) -> None:
    function, shapes = layer(BF16)
    arrays = arrays_of(shapes, BF16)
    with compiled_for(platform):
        found = kept(function, arrays)
    assert {leaf.dtype for leaf in found} == {jnp.dtype(BF16)}
    # Halves of a projection of 96 channels, beside what was projected.
    most = 2 * 2 * 5 * 48 + 2 * 5 * 24 if layer is gate else sum(map(np.prod, shapes))
    assert sum(leaf.size for leaf in found) <= most


@pytest.mark.parametrize("layer", [layer_norm, gate, attention])
@pytest.mark.parametrize(("platform", "dtype"), [("cpu", BF16), ("tpu", F32)])
def test_elsewhere_nothing_is_computed_twice(
    layer: Callable[..., Any], platform: str, dtype: Any
) -> None:
    function, shapes = layer(dtype)
    with compiled_for(platform):
        found = jax.make_jaxpr(function)(*arrays_of(shapes, dtype))
    assert "checkpoint" not in str(found) and "remat" not in str(found)


@pytest.mark.parametrize("layer", [layer_norm, gate, attention])
def test_gradients_are_those_of_the_plain_rule(layer: Callable[..., Any]) -> None:
    function, shapes = layer(BF16)
    arrays = arrays_of(shapes, BF16)

    def gradients(*arrays: jax.Array) -> tuple[jax.Array, ...]:
        def loss(*arrays: jax.Array) -> jax.Array:
            return jnp.square(function(*arrays).astype(F32)).sum()

        return jax.grad(loss, tuple(range(len(arrays))))(*arrays)

    with compiled_for("cpu"):
        plain = jax.make_jaxpr(gradients)(*arrays)
    with compiled_for("tpu"):
        again = jax.make_jaxpr(gradients)(*arrays)
    expected, found = (
        jax.core.eval_jaxpr(each.jaxpr, each.consts, *arrays) for each in (plain, again)
    )
    for theirs, ours in zip(expected, found, strict=True):
        theirs, ours = (np.asarray(each, np.float32) for each in (theirs, ours))
        assert np.linalg.norm(ours - theirs) <= 2e-2 * np.linalg.norm(theirs)
