"""Programs are compiled once, and with the effort that was asked for."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.runtime.programs import Programs, default_effort
from hotshot_jax.runtime.progress import NoProgress


def _counted() -> tuple[list[int], Callable[[jax.Array], jax.Array]]:
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
        program = programs.get("double", None, double, (argument,), NoProgress())
        np.testing.assert_array_equal(program(argument), 2 * np.full(3, value))
    assert len(traces) == 1


def test_other_shapes_dtypes_or_keys_are_compiled_anew() -> None:
    _, double = _counted()
    programs = Programs()
    compiled = [
        programs.get("double", key, double, (argument,), NoProgress())
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
    program = Programs().get("double", None, double, (argument,), NoProgress(), donate=(0,))
    program(argument)
    assert argument.is_deleted()


@pytest.mark.parametrize(
    ("effort", "option"),
    [(None, "EFFORT_O1"), ("O0", "EFFORT_O0"), ("O2", None), ("O3", "EFFORT_O3")],
)
def test_on_tpus_the_effort_reaches_the_compiler(
    monkeypatch: pytest.MonkeyPatch, effort: str | None, option: str | None
) -> None:
    given = []
    compile_lowered = jax.stages.Lowered.compile

    def compile_seen(lowered: jax.stages.Lowered, options: dict[str, str]) -> object:
        given.append(options)
        return compile_lowered(lowered)

    monkeypatch.setattr(jax.stages.Lowered, "compile", compile_seen)
    monkeypatch.setattr("hotshot_jax.runtime.programs.current_platform", lambda: "tpu")
    _, double = _counted()
    program = Programs(effort=effort).get("double", None, double, (jnp.ones(3),), NoProgress())
    np.testing.assert_array_equal(program(jnp.ones(3)), 2 * np.ones(3))
    assert given == [{} if option is None else {"xla_optimization_level": option}]


def test_an_effort_that_the_platform_does_not_know_is_refused() -> None:
    Programs(effort="O2")
    with pytest.raises(UsageError, match="O1 is for TPUs, and this run is on a CPU"):
        Programs(effort="O1")


def test_only_tpu_programs_are_compiled_with_less_effort_than_usual() -> None:
    assert [default_effort(platform) for platform in ("cpu", "gpu", "tpu")] == ["O2", "O2", "O1"]
