"""Programs are compiled once."""

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.pipelines.programs import Programs
from hotshot_jax.pipelines.progress import NoProgress


def _counted() -> tuple[list[int], object]:
    traces: list[int] = []

    def double(x: jax.Array) -> jax.Array:
        traces.append(1)
        return 2 * x

    return traces, double


def test_the_same_shapes_are_compiled_once() -> None:
    traces, double = _counted()
    programs = Programs()
    for value in (1.0, 2.0):
        argument = jnp.full((3,), value)
        program = programs.get("double", None, double, (argument,), NoProgress())  # type: ignore[arg-type]
        np.testing.assert_array_equal(program(argument), 2 * np.full(3, value))
    assert len(traces) == 1


def test_other_shapes_dtypes_or_keys_are_compiled_anew() -> None:
    _, double = _counted()
    programs = Programs()
    compiled = [
        programs.get("double", key, double, (argument,), NoProgress())  # type: ignore[arg-type]
        for key, argument in (
            ("a", jnp.zeros(3)),
            ("b", jnp.zeros(3)),
            ("a", jnp.zeros(4)),
            ("a", jnp.zeros(3, jnp.int32)),
        )
    ]
    assert len({id(program) for program in compiled}) == 4


def test_donated_buffers_are_taken_over() -> None:
    _, double = _counted()
    argument = jnp.zeros(3)
    program = Programs().get("double", None, double, (argument,), NoProgress(), donate=(0,))  # type: ignore[arg-type]
    program(argument)
    assert argument.is_deleted()
