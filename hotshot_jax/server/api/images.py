"""`/v1/images/generations`: one frame, as OpenAI's clients ask for it."""

import base64
import time
from typing import Any, Literal

import anyio
from fastapi import APIRouter, Request
from pydantic import BaseModel, Field

from hotshot_jax.files.plain_file import MOST_FILE_BYTES, read_bytes
from hotshot_jax.server.api.body import received
from hotshot_jax.server.api.errors import responses
from hotshot_jax.server.api.schema import IMAGE_BODY
from hotshot_jax.server.api.videos import failed_job, service_of
from hotshot_jax.server.api.waiting import until_finished
from hotshot_jax.server.job import Job, Status
from hotshot_jax.server.request import ImageRequest
from hotshot_jax.server.service import Service

router = APIRouter(prefix="/v1/images", tags=["images"])


class Image(BaseModel):
    """A picture."""

    b64_json: str = Field(description="The file, in base 64.")
    seed: int


class Images(BaseModel):
    """Pictures."""

    created: int
    data: list[Image]
    output_format: Literal["png", "jpeg", "webp"]
    size: str


@router.post(
    "/generations",
    response_model=Images,
    responses=responses(400, 404, 408, 409, 413, 415, 429, 500, 503, 507),
    openapi_extra=IMAGE_BODY,
    summary="Make pictures",
)
async def make(request: Request) -> Any:
    """Makes pictures and gives them; who hangs up does not want them any more."""
    service = service_of(request)
    service.check_room()
    async with received(request, ImageRequest, files=False) as (asked, _):
        service.check_model(asked.model)
    form = asked.output_format or "png"
    values = asked.settings()
    jobs: list[Job] = []
    try:
        for number in range(asked.n):
            seed = (values["seed"] + number) % 2**64
            jobs.append(
                await anyio.to_thread.run_sync(service.submit, "image", values | {"seed": seed})
            )
        data = [await _made(request, service, job, form) for job in jobs]
    finally:
        with anyio.CancelScope(shield=True):
            for job in jobs:
                # Pictures are not kept: they were given, or nobody waits for them.
                await anyio.to_thread.run_sync(service.forget, job.id)
    return {
        "created": int(time.time()),
        "data": data,
        "output_format": form,
        "size": jobs[0].told["size"],
    }


async def _made(request: Request, service: Service, job: Job, form: str) -> dict[str, Any]:
    job = await until_finished(request, service, job)
    if job.status != Status.COMPLETED:
        raise failed_job(job)
    path = await anyio.to_thread.run_sync(service.result, job.id, form)
    content = await anyio.to_thread.run_sync(read_bytes, path, MOST_FILE_BYTES)
    return {"b64_json": base64.b64encode(content).decode(), "seed": job.told["seed"]}
