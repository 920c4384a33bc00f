"""Programs are compiled once, and with the effort that was asked for."""

import contextlib
import gc
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.runtime.programs import MOST_KEPT, Programs, default_effort
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


def test_two_threads_compile_the_same_once() -> None:
    traces, double = _counted()
    programs = Programs()
    argument = jnp.ones(3)

    def get(_: int) -> Callable[..., Any]:
        programs.start_job()
        return programs.get("double", None, double, (argument,), NoProgress())

    with ThreadPoolExecutor(4) as pool:
        assert len({id(program) for program in pool.map(get, range(8))}) == 1
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


class _CompilationCount(NoProgress):
    def __init__(self) -> None:
        self.count = 0

    @contextlib.contextmanager
    def compiling(self, name: str) -> Iterator[None]:
        self.count += 1
        yield


def test_of_many_sizes_the_last_used_are_kept() -> None:
    programs, compilations = Programs(), _CompilationCount()

    def job(*sizes: int) -> Any:
        programs.start_job()
        for size in sizes:
            arguments = (jnp.zeros(size),)
            program = programs.get("negate", None, jnp.negative, arguments, compilations)
        return program

    second = weakref.ref(job(1, 2))
    for size in range(3, 3 * MOST_KEPT):
        job(1, size)
    assert len(programs) == MOST_KEPT
    gc.collect()
    assert second() is None, "given up, and its memory too"
    compiled = compilations.count
    job(1, 3 * MOST_KEPT - 1)
    assert compilations.count == compiled
    job(2)
    assert compilations.count == compiled + 1


def test_a_job_keeps_all_that_it_uses() -> None:
    """Giving up what the next prompt of the same job needs would compile all of it each time."""
    programs, compilations = Programs(), _CompilationCount()
    for _ in range(3):
        programs.start_job()
        for size in range(1, MOST_KEPT + 4):
            programs.get("negate", None, jnp.negative, (jnp.zeros(size),), compilations)
    assert compilations.count == len(programs) == MOST_KEPT + 3


def test_what_an_idle_thread_used_keeps_nothing_else() -> None:
    programs, argument = Programs(), jnp.ones(3)

    def get(key: object) -> Callable[..., Any]:
        programs.start_job()
        return programs.get("double", key, _counted()[1], (argument,), NoProgress())

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(get, "idle").result()
        for number in range(2 * MOST_KEPT):
            get(number)
            assert len(programs) <= MOST_KEPT
        assert pool.submit(get, "idle").result() is first


@pytest.mark.slow
def test_memory_stops_growing_with_sizes(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left of a size that was given up is less than half of one that is kept."""
    path, sizes = str(tiny_checkpoint), iter(range(4, 100))

    def growth() -> float:
        pipeline = HotshotXLPipeline.from_pretrained(path, precision="f32")
        resident = []
        for _ in range(12):
            pipeline("x", width=8 * next(sizes), height=32, num_inference_steps=1, video_length=2)
            gc.collect()
            resident.append(int(Path("/proc/self/statm").read_text().split()[1]))
        return resident[-1] - resident[3]

    bounded = growth()
    monkeypatch.setattr("hotshot_jax.runtime.programs.MOST_KEPT", 1000)
    kept = growth()
    assert bounded < kept / 2


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
