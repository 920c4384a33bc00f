"""Waiting for a job without a thread of one's own."""

import anyio
from fastapi import Request

from hotshot_jax.server.failures import ShuttingDown
from hotshot_jax.server.job import Job
from hotshot_jax.server.service import Service

LOOKS_EVERY_SECONDS = 0.1


async def until_finished(request: Request, service: Service, job: Job) -> Job:
    """The job when it has come to its end; it is cancelled if its sender hangs up.

    Raises:
        ShuttingDown: the server ends first; the job is made when it starts again.
        Unknown: somebody deleted it.
    """
    while not job.finished:
        if service.closing:
            raise ShuttingDown(f"The server is shutting down; {job.id} is made when it is back.")
        if await request.is_disconnected():
            await anyio.to_thread.run_sync(service.delete, job.id)
        await anyio.sleep(LOOKS_EVERY_SECONDS)
        job = service.job(job.id)
    return job
