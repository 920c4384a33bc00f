"""The threads that use the models: they take jobs in their order and make them."""

import dataclasses
import errno
import logging
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from hotshot_jax.errors import HotshotError, UsageError, causes, is_out_of_memory
from hotshot_jax.jobs.maker import Cancelled, Clip
from hotshot_jax.server import results
from hotshot_jax.server.failures import NoRoom
from hotshot_jax.server.heard import warnings_heard
from hotshot_jax.server.kept_frames import KeptFrames
from hotshot_jax.server.metrics import Metrics
from hotshot_jax.server.models import Models
from hotshot_jax.server.planning import PlannedClip, Planner
from hotshot_jax.server.progress import WatchedProgress
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.waiting import Live, Waiting
from hotshot_jax.server.words import in_api_words

logger = logging.getLogger(__name__)

# Written while the next are made; more of them would only lie in memory.
_MOST_UNWRITTEN = 2


@dataclasses.dataclass(frozen=True)
class Pace:
    """How jobs are made.

    Attributes:
        batch_sizes: clips of a call, rising from 1: few sizes, so that few programs are compiled.
        seconds_a_job: that making it may take.
        calls_at_once: made side by side, each by a thread of its own.
    """

    batch_sizes: tuple[int, ...] = (1,)
    seconds_a_job: float = 3600.0
    calls_at_once: int = 1

    def size_for(self, clips: int) -> int:
        """The size of the call that makes so many clips."""
        return next(size for size in self.batch_sizes if size >= clips)


class Worker:
    """Makes jobs, one batch after another, until it is stopped.

    Args:
        store: where jobs are kept.
        models: what they are made with.
        planner: plans what is taken from the queue.
        waiting: the queue.
        pace: how jobs are made.
        metrics: is told of them.
        ended: called when a job has come to its end, or waits again.
    """

    def __init__(
        self,
        store: JobStore,
        models: Models,
        planner: Planner,
        waiting: Waiting,
        pace: Pace,
        metrics: Metrics,
        ended: Callable[[Live], None],
    ):
        self._store = store
        self._models = models
        self._planner = planner
        self._waiting = waiting
        self._pace = pace
        self._metrics = metrics
        self._ended = ended
        self._stopping = threading.Event()
        self._writer = ThreadPoolExecutor(1, "hotshot-writer")
        self._writing: list[Future[None]] = []
        self._handing_over = threading.Lock()
        self._seconds_after: dict[tuple[int | None, ...], float] = {}
        self._threads = [
            threading.Thread(target=self._run, name=f"hotshot-worker-{number}", daemon=True)
            for number in range(pace.calls_at_once)
        ]

    def start(self) -> None:
        """Begins to take jobs."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends between two steps; what is not finished waits for the next start."""
        self._stopping.set()
        self._waiting.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()
        self._writer.shutdown()

    @property
    def alive(self) -> bool:
        """Whether jobs are taken."""
        return all(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        most = self._pace.batch_sizes[-1]
        while batch := self._waiting.take(most, self._begin):
            try:
                self._make(batch)
            except Exception as error:
                # Whatever it is, the next job has a right to be made.
                for live in batch:
                    if not live.handed_over:
                        self._fail(live, error)
            finally:
                self._waiting.made()

    def _begin(self, batch: Sequence[Live]) -> None:
        for live in batch:
            live.progress = WatchedProgress()

    def _make(self, batch: list[Live]) -> None:
        for live in batch:
            self._metrics.waited.observe(time.time() - live.job.created_at)
        self._store.begin([live.id for live in batch])
        with warnings_heard() as heard:
            try:
                plans = [self._plan(live) for live in batch]
                self._make_planned(batch, plans, heard)
                return
            except Cancelled:
                self._stopped(batch)
                return
            except Exception:
                if len(batch) == 1 or self._stopping.is_set():
                    raise
                logger.warning("A batch of %d failed; each is made alone.", len(batch))
        # Not before: an error that is being handled keeps the arrays of what has failed.
        for live in batch:
            if not live.handed_over:
                self._make_alone(live)

    def _make_alone(self, live: Live) -> None:
        with warnings_heard() as heard:
            try:
                self._make_planned([live], [self._plan(live)], heard)
            except Cancelled:
                self._stopped([live])
            except Exception as error:
                self._fail(live, error)

    def _plan(self, live: Live) -> PlannedClip:
        folder = self._store.job_folder(live.id)
        return live.plan or self._planner(live.job.values, results.uploads(folder))

    def _make_planned(
        self, batch: list[Live], plans: Sequence[PlannedClip], heard: list[str]
    ) -> None:
        first = plans[0]
        shape = (first.clip.width, first.clip.height, first.clip.video_length, len(batch))
        progress = WatchedProgress(self._seconds_after.get(shape))
        for row, live in enumerate(batch):
            live.progress, live.row = progress, row
        start = time.monotonic()
        until = start + self._pace.seconds_a_job

        def unwanted() -> bool:
            return (
                self._stopping.is_set()
                or time.monotonic() > until
                or all(live.cancelled for live in batch)
            )

        size = self._pace.size_for(len(batch))
        with self._models.lent(size, first.loras, first.controlnets) as maker:
            clips = maker.make(
                [plan.clip for plan in plans],
                first.controls,
                first.start,
                progress=progress,
                cancelled=unwanted,
                watch=progress.watch,
            )
            for live, plan in zip(batch, plans, strict=True):
                clip = next(clips)
                if progress.seconds_since_denoising is not None:
                    self._seconds_after[shape] = progress.seconds_since_denoising
                # Warnings of a batch quote the prompts of others.
                warnings = [in_api_words(text) for text in heard] if len(batch) == 1 else []
                self._hand_over(live, plan, clip, warnings)
        self._metrics.batches.observe(len(batch))
        self._metrics.made.observe(time.monotonic() - start)
        self._metrics.compiled.inc(progress.standing.compiled)

    def _hand_over(self, live: Live, plan: PlannedClip, clip: Clip, warnings: list[str]) -> None:
        live.handed_over = True
        with self._handing_over:
            self._writing = [each for each in self._writing if not each.done()]
            while len(self._writing) >= _MOST_UNWRITTEN:
                self._writing.pop(0).result()
            self._writing.append(self._writer.submit(self._write, live, plan, clip, warnings))

    def _write(self, live: Live, plan: PlannedClip, clip: Clip, warnings: list[str]) -> None:
        try:
            if live.cancelled:
                self._cancelled(live)
                return
            if live.progress is not None:
                live.progress.write()
            frames = plan.result(clip.frames)
            metadata = {**plan.metadata, **clip.metadata}
            kept = KeptFrames(frames, plan.duration_ms(len(frames)), metadata)
            forms = results.forms_of(live.job.kind)
            results.keep(self._store.job_folder(live.id), kept, next(iter(forms)))
            self._store.complete(live.id, warnings)
            if live.cancelled:
                self._store.remove(live.id)
            self._metrics.ended.labels("completed").inc()
            self._ended(live)
        except Exception as error:
            self._fail(live, error)

    def _stopped(self, batch: Sequence[Live]) -> None:
        """What becomes of jobs that were interrupted."""
        waits = [live for live in batch if self._stopping.is_set() and not live.cancelled]
        if waits:
            self._store.put_back([live.id for live in waits])
        for live in batch:
            if live.cancelled:
                self._cancelled(live)
            elif live in waits:
                live.progress = None
                self._ended(live)
            else:
                limit = f"{self._pace.seconds_a_job:g} seconds"
                self._failed(live, "timeout", f"It took longer than {limit}, which is the limit.")

    def _cancelled(self, live: Live) -> None:
        self._store.cancel(live.id)
        if live.unkept:
            self._store.remove(live.id)
        self._metrics.ended.labels("cancelled").inc()
        self._ended(live)

    def _fail(self, live: Live, error: BaseException) -> None:
        code, message = failure_of(error)
        if code == "server_error":
            log_without_words(error)
        self._failed(live, code, message)

    def _failed(self, live: Live, code: str, message: str) -> None:
        live.failure = code, message
        try:
            self._store.fail(live.id, code, message)
        except HotshotError as error:
            # It stays in memory, and is told from there.
            logger.warning("%s", error)
            return
        self._metrics.ended.labels("failed").inc()
        self._ended(live)


def failure_of(error: BaseException) -> tuple[str, str]:
    """Code and message of what failed, for the person who asked."""
    for each in causes(error):
        if isinstance(each, OSError) and each.errno in (errno.ENOSPC, errno.EDQUOT):
            return NoRoom.code, f"The server's disk is full ({each.strerror})."
    if is_out_of_memory(error) or any(isinstance(each, MemoryError) for each in causes(error)):
        return (
            "out_of_memory",
            "The device is out of memory: ask for a smaller size or fewer frames.",
        )
    if isinstance(error, NoRoom):
        return error.code, str(error)
    if isinstance(error, HotshotError):
        code = "invalid_value" if isinstance(error, UsageError) else "failed"
        return code, in_api_words(str(error))
    return "server_error", "The server made a mistake; its log says where."


def log_without_words(error: BaseException) -> None:
    """Logs where an error happened, without its message: that may quote a prompt or a key."""
    where = "".join(traceback.format_tb(error.__traceback__))
    logger.error("%s in\n%s", type(error).__name__, where.rstrip())
