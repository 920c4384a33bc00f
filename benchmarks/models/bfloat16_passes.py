"""Float32 products as a TPU makes them of bfloat16 ones, on any device.

A TPU splits a float32 number into bfloat16 parts, the leading eight bits, the next eight and the
last. One pass multiplies the leading parts alone; three add the leading part of each with the
second of the other; six add what is smaller still, and are what JAX calls float32.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

_PRODUCTS = ("dot_general", "conv_general_dilated")
# Parts of the left and of the right operand, whose products are added from the smallest on.
_PASSES = {1: ((0, 0),), 3: ((1, 0), (0, 1), (0, 0))}


def with_passes(function: Callable[..., Any], passes: int) -> Callable[..., Any]:
    """`function` with every product of float32 arrays made in so many passes.

    Sums are float32, as in a TPU's matrix unit. Only what the function says outright is changed:
    a loop of JAX's keeps its products.

    Args:
        function: takes and gives arrays, and has no loops.
        passes: 1 or 3.
    """

    def changed(*arguments: Any) -> Any:
        leaves = jax.tree.leaves(arguments)
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        results = _evaluate(closed.jaxpr, closed.consts, leaves, passes)
        return jax.tree.unflatten(jax.tree.structure(shape), results)

    return changed


def _evaluate(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], passes: int) -> Any:
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *arguments), strict=True))

    def read(each: Any) -> Any:
        return each.val if isinstance(each, Literal) else values[each]

    for equation in jaxpr.eqns:
        given = [read(each) for each in equation.invars]
        name, inner = equation.primitive.name, _called(equation)
        if name in _PRODUCTS and given[0].dtype == given[1].dtype == jnp.float32:
            results: Sequence[Any] = [_product(equation, *given, passes=passes)]
        elif name in ("scan", "while", "cond"):
            raise NotImplementedError(f"{name} in a function whose products are to be changed")
        elif inner is not None:
            results = _evaluate(inner.jaxpr, inner.consts, given, passes)
        else:
            results = _bound(equation, given)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(each) for each in jaxpr.outvars]


def _called(equation: Any) -> ClosedJaxpr | None:
    found = (equation.params.get(key) for key in ("jaxpr", "call_jaxpr"))
    return next((each for each in found if isinstance(each, ClosedJaxpr)), None)


def _bound(equation: Any, given: Sequence[Any]) -> Sequence[Any]:
    results = equation.primitive.bind(*given, **equation.params)
    return results if equation.primitive.multiple_results else [results]


def _product(equation: Any, left: jax.Array, right: jax.Array, *, passes: int) -> jax.Array:
    parts = (_parts(left), _parts(right))
    results = [_bound(equation, (parts[0][a], parts[1][b]))[0] for a, b in _PASSES[passes]]
    return sum(results[1:], start=results[0])


def _parts(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # Not by conversions there and back, which XLA may leave out.
    first = jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    return first, jax.lax.reduce_precision(x - first, exponent_bits=8, mantissa_bits=7)
