"""The time of a step in `metrics.jsonl` is that of training, whatever happens between steps."""

import contextlib
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from hotshot_jax.training.running import compiled_steps, loop
from hotshot_jax.training.running.loop import Loop, LoopConfig

LOADING, STEP = 1.0, 2.0
COMPILING, ENCODERS, SAVING, VALIDATING, TRACING = 1000.0, 300.0, 50.0, 70.0, 20.0


class Time:
    """A clock that moves when something is done."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def takes(self, seconds: float, result: Any = None) -> Any:
        def act(*_: Any, **__: Any) -> Any:
            self.now += seconds
            return result

        return act


class FakeLoader:
    batches_per_epoch = 4
    used_sizes = ((32, 16), (16, 16))
    config = SimpleNamespace(batch_size=6)

    def __init__(self) -> None:
        self.number = 0

    @property
    def next_size(self) -> tuple[int, int]:
        return (16, 16) if self.number % 3 else (32, 16)

    def get_state(self) -> dict[str, int]:
        return {}

    def close(self) -> None: ...


class FakeFeed:
    mesh = SimpleNamespace(size=1, devices=np.array([SimpleNamespace(platform="cpu")]))

    def __init__(self, time: Time) -> None:
        self.time, self.loader, self.encodes = time, FakeLoader(), set[Any]()

    def next(self) -> tuple[Any, dict[str, Any]]:
        size = self.loader.next_size
        if size not in self.encodes:
            self.encodes.add(size)
            self.time.now += ENCODERS
        self.time.now += LOADING
        batch = SimpleNamespace(size=size, number=self.loader.number, epoch=0, samples=["s"])
        self.loader.number += 1
        return batch, {}


class Seen:
    def __init__(self) -> None:
        self.seconds: dict[int, float] = {}
        self.rates: dict[int, float] = {}

    def numbers(self, step: int, values: Mapping[str, float]) -> None:
        if "step_seconds" in values:
            self.seconds[step] = values["step_seconds"]
            self.rates[step] = values["samples_per_second"]


@pytest.mark.parametrize("accumulation", [1, 2])
def test_only_training_counts(monkeypatch: pytest.MonkeyPatch, accumulation: int) -> None:
    time = Time()
    monkeypatch.setattr(loop, "time", time)
    numbers = {
        "loss": jnp.float32(1),
        "grad_norm": jnp.float32(1),
        "learning_rate": jnp.float32(1),
        "quarter_sums": jnp.ones(4),
        "quarter_counts": jnp.ones(4),
    }
    state: Any = {"step": jnp.int32(0)}

    class Program:
        def __call__(self, *_: Any) -> Any:
            time.now += STEP
            return state, numbers

    monkeypatch.setattr(compiled_steps, "trace_step", lambda *_, **__: SimpleNamespace(jaxpr=None))
    monkeypatch.setattr(compiled_steps, "traced_flops", lambda _: 12.0)
    monkeypatch.setattr(compiled_steps, "compile_step", time.takes(COMPILING, Program()))
    monkeypatch.setattr(compiled_steps.jax, "set_mesh", lambda _: contextlib.nullcontext())
    for name in ("start_trace", "stop_trace"):
        monkeypatch.setattr(loop.jax.profiler, name, time.takes(TRACING))
    reports = Seen()
    checkpoints = SimpleNamespace(save=time.takes(SAVING), wait=lambda: None, latest=None)
    trainer = SimpleNamespace(config=SimpleNamespace(accumulation_steps=accumulation))
    training = Loop(
        trainer,  # type: ignore[arg-type]
        FakeFeed(time),  # type: ignore[arg-type]
        {},
        checkpoints,  # type: ignore[arg-type]
        {},
        reports,  # type: ignore[arg-type]
        LoopConfig(
            steps=9,
            save_every=2,
            save_from=1,
            validate_every=3,
            validate_at_start=True,
            profile=(4, 5),
        ),
        validate=time.takes(VALIDATING, {"loss_held_out": 1.0}),
    )
    stop: Any = SimpleNamespace(asked=lambda step: False, number=None)

    class State(dict[str, Any]):
        step = 0

    training.run(State(), stop)  # type: ignore[arg-type]
    expected = accumulation * (LOADING + STEP)
    # The first batch of a size is read while what encodes it is compiled.
    bare = [seconds for seconds in reports.seconds.values() if seconds != expected]
    assert all(expected - seconds in (LOADING, 2 * LOADING) for seconds in bare) and len(bare) <= 2
    assert list(reports.seconds) == list(range(1, 10))
    for step, rate in reports.rates.items():
        assert rate == pytest.approx(6 * accumulation / reports.seconds[step])
    assert time.now > 2 * COMPILING + 2 * ENCODERS + 5 * SAVING + 4 * VALIDATING + 2 * TRACING
