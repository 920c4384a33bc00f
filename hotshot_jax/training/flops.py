"""Counting the floating-point operations of a program.

XLA's own analysis counts the body of a loop once, and SDXL's deep transformers are loops. Here the
program is counted as it is traced, before it is compiled: matrix products and convolutions, two
operations for each multiplication and addition, what is computed twice to save memory twice.
"""

import math
from collections.abc import Iterator
from typing import Any

from jax.extend.core import ClosedJaxpr, Jaxpr


def traced_flops(program: ClosedJaxpr | Jaxpr) -> float:
    """Operations of one call, on all devices together.

    Args:
        program: the `jaxpr` of a `jax.stages.Traced`, or what `jax.make_jaxpr` gives. Of branches
            the most expensive counts; the body of a loop whose length is not known counts once.
    """
    jaxpr = program.jaxpr if isinstance(program, ClosedJaxpr) else program
    return sum(_flops(equation) for equation in jaxpr.eqns)


def _flops(equation: Any) -> float:
    name, parameters = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = parameters["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * _size(equation.outvars[0]) * math.prod(left[axis] for axis in contracted)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = kernel[parameters["dimension_numbers"].rhs_spec[0]]
        # What lies between the values of a dilated input is known to be zero.
        taken = math.prod(kernel) / outputs / math.prod(parameters["lhs_dilation"])
        return 2.0 * _size(equation.outvars[0]) * taken
    inner = [traced_flops(each) for each in _programs(parameters)]
    if name == "scan":
        return parameters["length"] * sum(inner)
    return max(inner, default=0.0) if name == "cond" else sum(inner)


def _size(variable: Any) -> int:
    return math.prod(variable.aval.shape)


def _programs(parameters: dict[str, Any]) -> Iterator[ClosedJaxpr | Jaxpr]:
    for value in parameters.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr | Jaxpr):
                yield each
