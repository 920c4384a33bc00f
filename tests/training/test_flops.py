import jax
import jax.numpy as jnp
import pytest

from benchmarks.compile.hlo_costs import program_costs
from hotshot_jax.training.resources import traced_flops


def counted(function, *shapes: tuple[int, ...]) -> tuple[float, float]:
    """What is counted here, and in the program as XLA gets it."""
    arguments = [jnp.zeros(shape) for shape in shapes]
    traced = jax.jit(function).trace(*arguments)
    return traced_flops(traced.jaxpr), program_costs(traced.lower().as_text("hlo")).flops


def scanned(weights: jax.Array, x: jax.Array) -> jax.Array:
    return jax.lax.scan(lambda carry, w: (jnp.tanh(carry @ w), None), x, weights)[0].sum()


def test_loops_are_multiplied_out() -> None:
    here, there = counted(scanned, (10, 16, 16), (8, 16))
    assert here == there == 10 * 2 * 8 * 16 * 16
    # Two more products on the way back, and the first once more where it is computed twice.
    here, there = counted(jax.grad(scanned, (0, 1)), (10, 16, 16), (8, 16))
    assert here == there == 3 * 10 * 2 * 8 * 16 * 16
    twice = jax.grad(jax.checkpoint(scanned), (0, 1))
    assert counted(twice, (10, 16, 16), (8, 16))[0] == 4 * 10 * 2 * 8 * 16 * 16


@pytest.mark.parametrize("stride", [1, 2])
def test_convolutions_and_their_gradients(stride: int) -> None:
    def convolved(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    side = 16 // stride
    forward = 2 * 2 * side * side * 9 * 4 * 6
    shapes = (2, 16, 16, 4), (3, 3, 4, 6)
    assert counted(convolved, *shapes)[0] == forward
    gradient = jax.grad(lambda x, kernel: jnp.square(convolved(x, kernel)).sum(), (0, 1))
    here, there = counted(gradient, *shapes)
    # XLA's text tells which products fall on padding, which makes a tenth at these sizes; of a
    # stride's zeros both counts leave out all.
    assert here == pytest.approx(3 * forward, rel=0.01)
    assert there == pytest.approx(here, rel=0.25)


def test_of_branches_the_dearest_counts() -> None:
    def branched(x: jax.Array) -> jax.Array:
        return jax.lax.cond(x[0, 0] > 0, lambda x: x @ x @ x, lambda x: x @ x, x)

    traced = jax.jit(branched).trace(jnp.zeros((4, 4)))
    assert traced_flops(traced.jaxpr) == 2 * 2 * 4 * 4 * 4
