"""Server-sent events: a job whenever it stands otherwise."""

import json
import time
from collections.abc import AsyncIterator

import anyio
from fastapi import Request
from starlette.responses import StreamingResponse

from hotshot_jax.server.api.shown import shown
from hotshot_jax.server.api.waiting import LOOKS_EVERY_SECONDS
from hotshot_jax.server.failures import Unknown
from hotshot_jax.server.job import Job
from hotshot_jax.server.service import Service

# Proxies give up connections on which nothing comes.
_SILENT_SECONDS = 15.0

EVENT_SCHEMA = {
    "type": "object",
    "required": ["event", "data"],
    "properties": {
        "event": {
            "enum": ["progress", "completed", "failed", "cancelled", "deleted"],
            "description": "`progress`, or how the job came to its end.",
        },
        "data": {"type": "string", "description": "JSON: the job as it stands."},
    },
}
"""Of one event."""


def events(request: Request, service: Service, job: Job) -> StreamingResponse:
    """The events of a job, `progress` until it comes to its end, which is the last.

    A reader that is slow misses what is overtaken meanwhile; nothing is kept for it.

    Args:
        request: of the reader.
        service: that the job is of.
        job: as it stands.
    """
    return StreamingResponse(
        _events(request, service, job),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


async def _events(request: Request, service: Service, job: Job) -> AsyncIterator[str]:
    sent, sent_at = "", time.monotonic()
    while not service.closing:
        try:
            job = service.job(job.id)
        except Unknown:
            yield 'event: deleted\ndata: {"id": ' + json.dumps(job.id) + "}\n\n"
            return
        text = json.dumps(shown(service, job))
        if text != sent:
            event = job.status if job.finished else "progress"
            yield f"event: {event}\ndata: {text}\n\n"
            sent, sent_at = text, time.monotonic()
        elif time.monotonic() - sent_at > _SILENT_SECONDS:
            yield ": still here\n\n"
            sent_at = time.monotonic()
        if job.finished or await request.is_disconnected():
            return
        await anyio.sleep(LOOKS_EVERY_SECONDS)
