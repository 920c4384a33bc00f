"""Three passes of bfloat16 products, emulated, and what they do to pixels."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.models.bfloat16_passes import with_passes
from benchmarks.models.vae_precision import differences
from hotshot_jax.builtin import builtin_checkpoint
from hotshot_jax.convert.assembly import Parts, open_assembled
from hotshot_jax.convert.prepare import prepare_component


def product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum("ij,jk->ik", x, y)


def convolution(x: jax.Array, y: jax.Array) -> jax.Array:
    return jax.lax.conv(x[None, None], y[None, None], (1, 1), "SAME")


@pytest.mark.parametrize("function", [product, convolution])
@pytest.mark.parametrize(("passes", "least", "most"), [(1, 1e-3, 1e-2), (3, 1e-7, 5e-5)])
def test_products_are_as_coarse_as_their_passes(
    function: Callable[..., Any], passes: int, least: float, most: float
) -> None:
    x, y = np.random.default_rng(0).standard_normal((2, 64, 64))
    exact = np.asarray(function(jnp.float32(x), jnp.float32(y)))
    changed = jax.jit(with_passes(jax.jit(function), passes))
    got = np.asarray(changed(jnp.float32(x), jnp.float32(y)))
    # Eight bits and sixteen of each operand; errors of many terms average out.
    assert least < np.abs(got - exact).max() / np.abs(exact).max() < most


def test_small_parts_are_what_three_passes_keep() -> None:
    x = jnp.float32([[1 + 2**-10]])
    assert with_passes(product, 1)(x, x) == 1
    # Without the square of the small part.
    assert with_passes(product, 3)(x, x) == 1 + 2**-9


def test_loops_are_refused() -> None:
    def looped(x: jax.Array) -> Any:
        return jax.lax.scan(lambda carry, _: (carry @ carry, None), x, None, 2)[0]

    with pytest.raises(NotImplementedError, match="scan"):
        with_passes(looped, 3)(jnp.eye(2))


def test_three_passes_stay_within_a_step_of_float32_and_one_pass_does_not() -> None:
    component = open_assembled(str(builtin_checkpoint()), Parts()).components["vae"]
    vae: Any = prepare_component(component, dtype=jnp.float32).load()
    latents = np.random.default_rng(0).standard_normal((2, 8, 8, 4)).astype(np.float32)
    found = differences(vae, latents)
    assert 0 < found["bf16x3"].most < 0.25
    assert found["1 pass"].most > 20 * found["bf16x3"].most
    assert found["bf16"].most > 20 * found["bf16x3"].most
