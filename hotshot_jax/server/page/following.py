"""Jobs followed until they come to their end, for each tab of a browser."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

import anyio
import anyio.to_thread

from hotshot_jax.server.failures import Unknown
from hotshot_jax.server.job import Job
from hotshot_jax.server.page import cards
from hotshot_jax.server.service import Service

LOOKS_EVERY_SECONDS = 0.25
MOST_TOGETHER = 2
"""Jobs that are shown side by side."""

_CLOSING = "The server is shutting down. What is not finished is made when it is back: reload then."
_CALLED = {
    "guidance_scale": "guidance",
    "motion_scale": "motion",
    "negative_prompt": "negative prompt",
}


class Following:
    """Shows jobs as they stand.

    Args:
        service: that they are of.
    """

    def __init__(self, service: Service):
        self._service = service
        self._latest: dict[str, object] = {}

    async def shown(self, tab: str, ids: Sequence[str]) -> AsyncIterator[str]:
        """HTML of jobs whenever they stand otherwise, until all have come to their end.

        It ends before that if the same tab follows others from then on.

        Args:
            tab: of a browser.
            ids: of the jobs.
        """
        this = self._latest[tab] = object()
        before = ""
        try:
            while self._latest.get(tab) is this:
                now, finished = await anyio.to_thread.run_sync(partial(self._look, ids))
                if now != before and self._latest.get(tab) is this:
                    yield now
                    before = now
                if not finished and self._service.closing:
                    yield now + cards.message(_CLOSING)
                if finished or self._service.closing:
                    return
                await anyio.sleep(LOOKS_EVERY_SECONDS)
        finally:
            if self._latest.get(tab) is this:
                del self._latest[tab]

    def _look(self, ids: Sequence[str]) -> tuple[str, bool]:
        jobs: list[Job | None] = []
        for id in ids:
            try:
                jobs.append(self._service.job(id))
            except Unknown:
                jobs.append(None)
        there = [job for job in jobs if job is not None]
        told = [
            self._card(job, there)
            if job is not None
            else cards.message("That clip is not kept any more, or never was.", "error")
            for job in jobs
        ]
        return cards.results(told, ids), all(job.finished for job in there)

    def _card(self, job: Job, jobs: Sequence[Job]) -> str:
        standing = {} if job.finished else self._service.standing(job.id)
        preview = None if job.finished else self._service.preview(job.id)
        return cards.card(job, standing, preview, difference(job, jobs))


def difference(job: Job, jobs: Sequence[Job]) -> str:
    """What a job was asked for otherwise than those beside it, such as `seed 7`.

    Args:
        job: one of them.
        jobs: all of them.
    """
    names = [
        name
        for name in job.values
        if any(other.values.get(name) != job.values[name] for other in jobs)
    ]
    return ", ".join(f"{_CALLED.get(name, name)} {_shown(job.values[name])}" for name in names)


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
