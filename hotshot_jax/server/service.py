"""The server without HTTP: what pages and programs ask of it."""

import contextlib
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from hotshot_jax.errors import HotshotError
from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.runtime.programs import return_free_memory
from hotshot_jax.server import results
from hotshot_jax.server.failures import (
    BadRequest,
    NoRoom,
    NotReady,
    QueueFull,
    ShuttingDown,
    Unknown,
)
from hotshot_jax.server.heard import kept_from_log, warnings_heard
from hotshot_jax.server.job import Job, Status, is_id
from hotshot_jax.server.limits import Limits, ServedModel
from hotshot_jax.server.metrics import Metrics
from hotshot_jax.server.models import Models
from hotshot_jax.server.pictures import check_pictures
from hotshot_jax.server.planning import PlannedClip, Planner
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.waiting import Live, Waiting
from hotshot_jax.server.words import in_api_words
from hotshot_jax.server.worker import Pace, Worker, log_without_words

logger = logging.getLogger(__name__)

_HOUSEKEEPING_SECONDS = 30.0
# Until there are figures of this server.
_USUAL_SECONDS_A_JOB = 10.0


class Service:
    """Takes jobs, has them made, and gives their results. All threads may use it.

    Args:
        store: where jobs are kept.
        models: what they are made with.
        planner: plans what is asked for.
        served: what is served.
        limits: what is taken and kept.
        pace: how jobs are made.
        colors: what latents look like; without it there are no previews.
    """

    def __init__(
        self,
        store: JobStore,
        models: Models,
        planner: Planner,
        served: ServedModel,
        limits: Limits | None = None,
        pace: Pace | None = None,
        colors: LatentColors | None = None,
    ):
        self.served = served
        self.limits = limits or Limits()
        self.metrics = Metrics()
        self.closing = False
        self._store = store
        self._planner = planner
        self._positions = models.positions
        self._live: dict[str, Live] = {}
        self._entering = threading.Lock()
        self._entered = 0
        self._planning = threading.BoundedSemaphore(2)
        self._waiting = Waiting()
        self._pace = pace or Pace()
        self._seconds_a_job: float | None = None
        self._worker = Worker(
            store, models, self._planned, self._waiting, self._pace, self.metrics, self._ended
        )
        self._colors = colors
        self._stopped = threading.Event()
        self._at_end = contextlib.ExitStack()
        self._keeper = threading.Thread(target=self._keep_house, name="hotshot-keeper", daemon=True)
        self.metrics.watch_queue(lambda: len(self._waiting))

    def start(self) -> None:
        """Takes up what an earlier server left, and begins."""
        self._at_end.enter_context(kept_from_log())
        for job in self._store.recover():
            live = Live(job)
            self._live[job.id] = live
            if not results.uploads(self._store.job_folder(job.id)):
                try:
                    live.plan = self._planned(job.values, {})
                    live.shared = live.plan.shared(self._positions)
                except HotshotError as error:
                    self._live.pop(job.id)
                    self._store.fail(job.id, "invalid_value", in_api_words(str(error)))
                    continue
                except Exception as error:
                    # The worker will fail it in its turn.
                    log_without_words(error)
            self._waiting.add(live)
        self._worker.start()
        self._keeper.start()

    def stop(self) -> None:
        """Ends between two steps; what is not finished is queued for the next start."""
        self.closing = True
        self._stopped.set()
        self._worker.stop()
        if self._keeper.ident is not None:
            self._keeper.join()
        self._at_end.close()

    @property
    def healthy(self) -> bool:
        """Whether jobs are made."""
        return self._worker.alive and not self.closing

    def check_room(self) -> None:
        """Checks that one more job would be taken, before anything of it is read.

        Raises:
            QueueFull: too many wait.
            ShuttingDown: the server ends.
        """
        if self.closing:
            raise ShuttingDown("The server is shutting down. Try again in a while.")
        if len(self._waiting) + self._entered >= self.limits.most_waiting:
            seconds = self._seconds_a_job or _USUAL_SECONDS_A_JOB
            raise QueueFull(
                f"{self.limits.most_waiting} jobs wait already. Try again later.",
                max(1, round(seconds)),
            )

    def check_model(self, model: str | None) -> None:
        """Checks that a model is the one that is served.

        Raises:
            Unknown: it is another.
        """
        if model is not None and model != self.served.id:
            raise Unknown(f"The model {model!r} is not served here; {self.served.id!r} is.")

    def usual(self) -> PlannedClip:
        """The clip that is made if nothing but a prompt is asked for."""
        with kept_from_log(), warnings_heard():
            return self._planner({"prompt": "a", "seed": 0}, {})

    def submit(
        self,
        kind: str,
        values: Mapping[str, Any],
        uploads: Mapping[str, Path] | None = None,
        fill: Callable[[Path], object] | None = None,
    ) -> Job:
        """Takes a job.

        Args:
            kind: `video` or `image`.
            values: what is asked for, from `VideoRequest.settings` or `ImageRequest.settings`.
            uploads: files that were sent along, by their names in the API.
            fill: moves them to where they will be kept.

        Raises:
            BadRequest: it cannot be made.
            QueueFull: too many wait.
            NoRoom: the disk is full.
            ShuttingDown: the server ends.
        """
        with self._entering:
            self.check_room()
            self._entered += 1
        try:
            plan = self._checked(values, uploads or {})

            def put(folder: Path) -> None:
                if fill is not None:
                    fill(results.uploads_folder(folder))

            told = plan.told() | {"model": self.served.id, "prompt": plan.clip.prompt}
            if plan.warnings:
                told["warnings"] = list(plan.warnings)
            job = self._store.add(kind, values, told, put)
            shared = plan.shared(self._positions)
            live = Live(job, None if uploads else plan, shared)
            self._live[job.id] = live
            self._waiting.add(live)
            return job
        finally:
            with self._entering:
                self._entered -= 1

    def job(self, id: str) -> Job:
        """A job as it stands.

        Raises:
            Unknown: there is none of that name.
        """
        job = self._store.get(id) if is_id(id) else None
        if job is None:
            raise Unknown("There is no job of that name, or it is not kept any more.")
        return self._as_it_stands(job)

    def jobs(self, kind: str, limit: int, after: str | None, *, newest_first: bool) -> list[Job]:
        """Some jobs, one after another; see `JobStore.page`.

        Raises:
            Unknown: there is none that they could follow.
        """
        number = None if after is None else self.job(after).number
        page = self._store.page(kind, limit, number, newest_first=newest_first)
        return [self._as_it_stands(job) for job in page]

    def standing(self, id: str) -> dict[str, Any]:
        """How far a job is: `progress` in percent, and what else can be told."""
        live = self._live.get(id)
        if live is None:
            return {}
        place = self._waiting.place(live)
        if place is not None:
            return {"stage": "waiting", "queue_position": place + 1}
        if live.progress is None:
            return {}
        now = live.progress.standing
        told: dict[str, Any] = {"progress": now.percent, "stage": now.stage}
        if now.seconds_left is not None:
            told["seconds_left"] = now.seconds_left
        if now.compiled:
            told["note"] = "This size was not compiled yet, which takes a while, once."
        return told

    def preview(self, id: str) -> np.ndarray | None:
        """What a clip that is being made looks like by now; None where nothing can be told.

        Returns:
            uint8 `[frames, height / 8, width / 8, 3]`.
        """
        live = self._live.get(id)
        if self._colors is None or live is None or live.progress is None:
            return None
        latents = live.progress.look()
        return None if latents is None else self._colors(latents[live.row])

    def result(self, id: str, form: str) -> Path:
        """The file of a result; writes it if that form is asked for the first time.

        Args:
            id: of the job.
            form: one of `results.forms_of`.

        Raises:
            Unknown: there is no such job.
            NotReady: it has no result, or not yet.
            NoRoom: the disk is full.
        """
        job = self.job(id)
        if job.status != Status.COMPLETED:
            wait = "" if job.finished else " yet"
            raise NotReady(f"The job is {job.status}: there is nothing to be had{wait}.")
        folder = self._store.job_folder(id)
        if results.has_form(folder, form):
            return results.in_form(folder, form)
        try:
            path = results.in_form(folder, form)
        except (HotshotError, OSError) as error:
            # It may have been deleted, which is not the disk's fault.
            self.job(id)
            raise NoRoom(f"{form.upper()} cannot be written: {_without_paths(error)}") from error
        self._store.measure(id)
        return path

    def delete(self, id: str) -> None:
        """Cancels a job between two steps, or removes it if it has come to its end.

        Raises:
            Unknown: there is no such job.
        """
        self.job(id)
        live = self._live.get(id)
        if live is None or live.failure is not None:
            self._live.pop(id, None)
            self._store.remove(id)
            return
        live.cancelled = True
        if self._waiting.remove(live):
            self._store.cancel(id)
            self.metrics.ended.labels("cancelled").inc()
            self._live.pop(id, None)
            return
        job = self._store.get(id)
        if job is not None and job.status == Status.COMPLETED:
            # It came to its end at this very moment.
            self._store.remove(id)

    def forget(self, id: str) -> None:
        """Sees to it that nothing is left of a job; it need not be there."""
        if self._store.get(id) is None:
            return
        live = self._live.get(id)
        if live is not None:
            live.unkept = True
        self.delete(id)
        if self._live.get(id) is None:
            self._store.remove(id)

    def _checked(self, values: Mapping[str, Any], uploads: Mapping[str, Path]) -> PlannedClip:
        # What is sent along may take a lot of memory to be looked at.
        with self._planning:
            try:
                check_pictures(uploads)
                return self._planned(values, uploads)
            except HotshotError as error:
                raise BadRequest(in_api_words(str(error))) from error

    def _planned(self, values: Mapping[str, Any], uploads: Mapping[str, Path]) -> PlannedClip:
        plan = self._planner(values, uploads)
        self.limits.check(plan)
        return plan

    def _as_it_stands(self, job: Job) -> Job:
        """A job with what the table does not know, or not yet."""
        live = self._live.get(job.id)
        if live is None or job.finished:
            return job
        if live.failure is not None:
            code, message = live.failure
            return dataclasses.replace(
                job, status=Status.FAILED, error={"code": code, "message": message}
            )
        if live.cancelled:
            return dataclasses.replace(job, status=Status.CANCELLED)
        return job

    def _ended(self, live: Live) -> None:
        if live.progress is not None:
            job = self._store.get(live.id)
            if job is not None and job.started_at and job.completed_at:
                self._seconds_a_job = job.completed_at - job.started_at
        self._live.pop(live.id, None)

    def _keep_house(self) -> None:
        while True:
            try:
                before = time.time() - self.limits.kept_seconds
                self.metrics.kept.set(self._store.remove_old(before, self.limits.kept_bytes))
                for live in list(self._live.values()):
                    if live.failure is not None:
                        self._store.fail(live.id, *live.failure)
                        self._live.pop(live.id, None)
            except HotshotError as error:
                logger.warning("%s", error)
            except Exception as error:
                log_without_words(error)
            # What many threads took and gave back is scattered.
            return_free_memory()
            if self._stopped.wait(_HOUSEKEEPING_SECONDS):
                return


def _without_paths(error: Exception) -> str:
    strerror = getattr(error.__cause__ or error, "strerror", None)
    return f"{strerror or 'the result is gone or damaged'}."
