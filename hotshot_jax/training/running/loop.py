"""The loop: batches in, parameters and numbers out, and nothing lost on the way."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.compile_effort import DEFAULT_EFFORT
from hotshot_jax.data.batch import Batch
from hotshot_jax.data.buckets import Size
from hotshot_jax.errors import HotshotError
from hotshot_jax.runtime.stored_programs import StoredPrograms
from hotshot_jax.training.feeding.feed import Feed
from hotshot_jax.training.resources import device_memory, host_memory, peak_flops
from hotshot_jax.training.running.checkpoint import Checkpoints
from hotshot_jax.training.running.compiled_steps import CompiledSteps
from hotshot_jax.training.running.interruption import Interrupted, StopRequest
from hotshot_jax.training.running.metrics import Reports
from hotshot_jax.training.running.step import Trainer, TrainState
from hotshot_jax.training.trainees.trainee import Parameters


class StepClock:
    """A stopwatch that can be stopped while something else is done. It starts running."""

    def __init__(self) -> None:
        self._since = time.monotonic()
        self._left_out = 0.0

    def lap(self) -> tuple[float, float]:
        """Seconds since the last call: without those of pauses, and those of pauses."""
        now = time.monotonic()
        left_out = self._left_out
        seconds = now - self._since - left_out
        self._since, self._left_out = now, 0.0
        return seconds, left_out

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """The time until the end of the context does not count."""
        begin = time.monotonic()
        try:
            yield
        finally:
            self._left_out += time.monotonic() - begin


Validate = Callable[[int, TrainState], Mapping[str, float]]
"""From the step and the state to numbers to report."""


@dataclasses.dataclass(frozen=True)
class LoopConfig:
    """When things happen.

    Attributes:
        steps: updates in all.
        save_every: updates between checkpoints; 0 saves at the end and when stopped only.
        save_from: the first step that is saved.
        validate_every: updates between validations; 0 for none.
        validate_at_start: whether to validate before the first update.
        profile: first and last step of a profiler trace.
        profile_folder: where that goes.
        compile_effort: of the compiler, see `effort_options`.
        whole_epochs: whether the last update of an epoch takes what is left of it, where updates
            have several batches; else they run on into the next one.
    """

    steps: int
    save_every: int = 100
    save_from: int = 100
    validate_every: int = 100
    validate_at_start: bool = False
    profile: tuple[int, int] | None = None
    profile_folder: Path | None = None
    compile_effort: str = DEFAULT_EFFORT
    whole_epochs: bool = False

    def saves(self, step: int) -> bool:
        """Whether a checkpoint is written after a step."""
        if not self.save_every or step < max(1, self.save_from):
            return False
        return (step - self.save_from) % self.save_every == 0

    def validates(self, step: int) -> bool:
        """Whether there is a validation after a step."""
        return bool(self.validate_every) and step > 0 and step % self.validate_every == 0


@dataclasses.dataclass(frozen=True)
class _Done:
    """An update that has been started and whose numbers are still on the way."""

    step: int
    metrics: list[dict[str, jax.Array]]
    batches: list[Batch]
    flops: float
    data_seconds: float

    @property
    def finished(self) -> bool:
        """Whether the numbers have come."""
        return all(leaf.is_ready() for leaf in jax.tree.leaves(self.metrics))


class Loop:
    """Trains until the last step or a signal.

    Args:
        trainer: the programs.
        feed: the batches.
        frozen: parameters that do not train.
        checkpoints: where the state is saved.
        metadata: what is stored with each checkpoint, beside the position in the data.
        reports: take the numbers.
        config: when things happen.
        validate: shows how far training is.
        advance: told of each update, with its numbers.
        compiling: a context around each compilation.
        stored: compiled steps of earlier runs; by all that `trainer` is made of.
    """

    def __init__(
        self,
        trainer: Trainer,
        feed: Feed,
        frozen: Parameters,
        checkpoints: Checkpoints,
        metadata: Mapping[str, Any],
        reports: Reports,
        config: LoopConfig,
        *,
        validate: Validate | None = None,
        advance: Callable[[int, Mapping[str, Any]], None] = lambda step, values: None,
        compiling: Callable[[str], contextlib.AbstractContextManager[None]] = (
            lambda name: contextlib.nullcontext()
        ),
        stored: StoredPrograms | None = None,
    ):
        self.trainer = trainer
        self.feed = feed
        self.frozen = frozen
        self.checkpoints = checkpoints
        self.metadata = metadata
        self.reports = reports
        self.config = config
        self.validate = validate
        self.advance = advance
        self.compiling = compiling
        self.steps = CompiledSteps(trainer, feed.mesh, config.compile_effort, stored)
        self._peak = peak_flops(jax.local_devices()[0])
        self._clock = StepClock()
        self._sizes: set[Size] = set()
        self._pending: _Done | None = None

    def run(self, state: TrainState, stop: StopRequest) -> TrainState:
        """Trains from where a state stands.

        Args:
            state: given away.
            stop: asked between two updates.

        Returns:
            The state after the last update, which has been saved.

        Raises:
            Interrupted: a signal came; the state has been saved.
            HotshotError: a loss is not finite, a clip cannot be read, or a checkpoint cannot be
                written.
        """
        step = int(state.step)
        started = step
        if self.validate is not None and step == 0 and self.config.validate_at_start:
            self._validate(step, state)
        self._clock.lap()
        try:
            while step < self.config.steps and not stop.asked(step):
                # Where devices work while the host waits, this is when the update ended.
                if self._pending is not None and self._pending.finished:
                    self._report_pending()
                self._profile(step + 1, state)
                state, done = self._update(state, step + 1)
                step += 1
                # The numbers of the update before are fetched while this one is computed.
                self._report_pending()
                self._pending = done
                if self.config.saves(step):
                    self._save(state, step)
                if self.validate is not None and self.config.validates(step):
                    self._validate(step, state)
            self._report_pending()
            if step > started:
                self._save(state, step)
            self.checkpoints.wait()
        finally:
            self._end_profile()
            self.feed.loader.close()
        if stop.number is not None and step < self.config.steps:
            raise Interrupted(
                stop.number, f"step {step} is saved, and the same command goes on from there"
            )
        return state

    def _update(self, state: TrainState, step: int) -> tuple[TrainState, _Done]:
        metrics: list[dict[str, jax.Array]] = []
        batches: list[Batch] = []
        flops = waited = 0.0
        count = self.trainer.config.accumulation_steps
        last = False
        while not last:
            batch, arrays, seconds = self._next(state)
            waited += seconds
            number = len(batches)
            ends_epoch = (batch.number + 1) % self.feed.loader.batches_per_epoch == 0
            last = number == count - 1 or (self.config.whole_epochs and ends_epoch)
            program, cost = self._program(state, batch, arrays, last=last)
            state, numbers = program(state, self.frozen, arrays, jnp.int32(number))
            metrics.append(numbers)
            batches.append(batch)
            flops += cost
        return state, _Done(step, metrics, batches, flops, waited)

    def _next(self, state: TrainState) -> tuple[Batch, dict[str, jax.Array], float]:
        """A batch, and the seconds of training in which it was waited for."""
        size = self.feed.loader.next_size
        if size in self._sizes:
            begin = time.monotonic()
            batch, arrays = self.feed.next()
            return batch, arrays, time.monotonic() - begin
        # What encodes frames of a new size is compiled on the way.
        with self._apart(state):
            self._sizes.add(size)
            return *self.feed.next(), 0.0

    @contextlib.contextmanager
    def _apart(self, state: TrainState) -> Iterator[None]:
        """Around what is no training: the clock stops once the device has done what was given."""
        self._report_pending()
        jax.block_until_ready(state)
        with self._clock.paused():
            yield

    def _program(
        self, state: TrainState, batch: Batch, arrays: Any, *, last: bool
    ) -> tuple[Any, float]:
        if (batch.size, last) not in self.steps:
            sizes = [batch.size, *self.feed.loader.used_sizes]
            names = ", ".join(f"{width} x {height}" for width, height in dict.fromkeys(sizes))
            with self._apart(state), self.compiling(f"training step, {names}"):
                self.steps.compile(state, self.frozen, arrays, sizes)
        return self.steps[batch.size, last]

    def _report_pending(self) -> None:
        done, self._pending = self._pending, None
        if done is None:
            return
        fetched = jax.device_get(done.metrics)
        loss = float(np.mean([numbers["loss"] for numbers in fetched]))
        norm = float(fetched[-1]["grad_norm"])
        if not (math.isfinite(loss) and math.isfinite(norm)):
            self._refuse(done, loss, norm)
        seconds, apart = self._clock.lap()
        seconds = max(seconds, 1e-9)
        sums = np.sum([numbers["quarter_sums"] for numbers in fetched], 0)
        counts = np.sum([numbers["quarter_counts"] for numbers in fetched], 0)
        values: dict[str, Any] = {
            "loss": loss,
            "grad_norm": norm,
            "learning_rate": float(fetched[-1]["learning_rate"]),
            "epoch": done.batches[-1].epoch,
            "samples_per_second": len(done.batches) * self.feed.loader.config.batch_size / seconds,
            "step_seconds": seconds,
            "data_seconds": done.data_seconds,
            "other_seconds": apart,
            "devices": self.feed.mesh.size,
            "flops_per_second": done.flops / seconds,
            "host_memory_bytes": host_memory(),
            "device_memory_bytes": device_memory(),
        }
        for quarter in range(4):
            mean = float(sums[quarter] / counts[quarter]) if counts[quarter] else None
            values[f"loss_quarter_{quarter + 1}"] = mean
        if self._peak is not None:
            values["flop_utilisation"] = done.flops / seconds / self._peak
        self.reports.numbers(done.step, values)
        self.advance(done.step, values)

    def _refuse(self, done: _Done, loss: float, norm: float) -> None:
        self.checkpoints.wait()
        samples = ", ".join(name for batch in done.batches for name in batch.samples)
        latest = self.checkpoints.latest
        good = "There is no checkpoint" if latest is None else f"The last good one is {latest.path}"
        what = f"loss is {loss}" if not math.isfinite(loss) else f"norm of the gradients is {norm}"
        raise HotshotError(
            f"The {what} at step {done.step}, on the samples {samples}.\n{good}. Look at these "
            "samples, or lower `learning_rate`, and run the command again."
        )

    def _save(self, state: TrainState, step: int) -> None:
        metadata = {**self.metadata, "data": self.feed.loader.get_state()}
        with self._apart(state):
            self.checkpoints.save(state, step, metadata)

    def _validate(self, step: int, state: TrainState) -> None:
        assert self.validate is not None
        with self._apart(state):
            values = self.validate(step, state)
        if values:
            self.reports.numbers(step, values)

    def _profile(self, step: int, state: TrainState) -> None:
        if self.config.profile is None:
            return
        first, last = self.config.profile
        if step == first:
            with self._apart(state):
                jax.profiler.start_trace(str(self.config.profile_folder))
            self._profiling = True
        elif step == last + 1:
            with self._apart(state):
                self._end_profile()

    _profiling = False

    def _end_profile(self) -> None:
        if self._profiling:
            jax.profiler.stop_trace()
            self._profiling = False
