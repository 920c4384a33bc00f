"""`/v1/videos`: jobs are made, looked at, waited for, fetched and deleted."""

from pathlib import Path
from typing import Annotated, Any, Literal

import anyio
from fastapi import APIRouter, Path as InPath, Query, Request
from fastapi.responses import FileResponse
from starlette.responses import StreamingResponse

from hotshot_jax.server.api.body import received
from hotshot_jax.server.api.errors import responses
from hotshot_jax.server.api.events import EVENT_SCHEMA, events
from hotshot_jax.server.api.forms import CONTENTS, form_asked_for
from hotshot_jax.server.api.schema import VIDEO_BODY
from hotshot_jax.server.api.shown import Deleted, Video, Videos, shown
from hotshot_jax.server.api.waiting import until_finished
from hotshot_jax.server.failures import NotReady, Refusal, Unknown
from hotshot_jax.server.job import Job, Status
from hotshot_jax.server.request import VideoRequest
from hotshot_jax.server.results import CLIP_FORMS
from hotshot_jax.server.service import Service

router = APIRouter(prefix="/v1/videos", tags=["videos"])

_Id = Annotated[str, InPath(max_length=100, description="Of the job.")]
_Form = Annotated[
    Literal["gif", "mp4", "webp"] | None, Query(description="Instead of `Accept`; GIF by default.")
]
_STATUS_OF_FAILURES = {"no_room": 507, "server_error": 500, "invalid_value": 400}
_ACCEPTED = responses(400, 404, 408, 413, 415, 429, 503, 507)


def service_of(request: Request) -> Service:
    """What an app serves."""
    service: Service = request.app.state.service
    return service


async def submitted(request: Request) -> Job:
    """Takes a job as its sender describes it."""
    service = service_of(request)
    service.check_room()
    async with received(request, VideoRequest, files=True) as (asked, files):
        service.check_model(asked.model)
        return await anyio.to_thread.run_sync(
            service.submit, "video", asked.settings(), files.uploads, files.move
        )


async def file_of(service: Service, job: Job, form: str) -> FileResponse:
    """The result of a job in a form."""
    path: Path = await anyio.to_thread.run_sync(service.result, job.id, form)
    return FileResponse(
        path,
        media_type=CLIP_FORMS[form],
        filename=f"{job.id}.{form}",
        content_disposition_type="inline",
        headers={"X-Content-Type-Options": "nosniff", "Vary": "Accept"},
    )


def video_job(service: Service, id: str) -> Job:
    """A job of this kind.

    Raises:
        Unknown: there is none of that name.
    """
    job = service.job(id)
    if job.kind != "video":
        raise Unknown("There is no job of that name, or it is not kept any more.")
    return job


@router.post(
    "",
    response_model=Video,
    response_model_exclude_none=True,
    responses=_ACCEPTED,
    openapi_extra=VIDEO_BODY,
    summary="Make a job",
)
async def make(request: Request) -> Any:
    """Takes a job, which is made in its turn; look at it again to see how far it is."""
    job = await submitted(request)
    return shown(service_of(request), job)


@router.post(
    "/sync",
    responses=_ACCEPTED | responses(409, 500) | CONTENTS,
    response_class=FileResponse,
    openapi_extra=VIDEO_BODY,
    summary="Make a clip and wait for it",
)
async def make_and_wait(request: Request, format: _Form = None) -> Any:
    """Takes a job and gives its result; who hangs up does not want it any more."""
    service, form = service_of(request), form_asked_for(request, format)
    job = await until_finished(request, service, await submitted(request))
    if job.status != Status.COMPLETED:
        raise failed_job(job)
    answer = await file_of(service, job, form)
    answer.headers["X-Job-Id"] = job.id
    return answer


@router.get(
    "",
    response_model=Videos,
    response_model_exclude_none=True,
    responses=responses(404),
    summary="List jobs",
)
async def listed(
    request: Request,
    limit: Annotated[int, Query(ge=1, le=100, description="How many, at most.")] = 20,
    after: Annotated[
        str | None, Query(max_length=100, description="The job that they follow.")
    ] = None,
    order: Annotated[Literal["asc", "desc"], Query(description="By age; newest first.")] = "desc",
) -> Any:
    """Jobs, the newest first; `after` the last of a page comes the next page."""
    service = service_of(request)
    jobs = await anyio.to_thread.run_sync(
        lambda: service.jobs("video", limit + 1, after, newest_first=order == "desc")
    )
    data = [shown(service, job) for job in jobs[:limit]]
    ids = [each["id"] for each in data] or [None]
    return {
        "data": data,
        "first_id": ids[0],
        "last_id": ids[-1],
        "has_more": len(jobs) > limit,
    }


@router.get(
    "/{video_id}",
    response_model=Video,
    response_model_exclude_none=True,
    responses=responses(404),
    summary="Look at a job",
)
async def looked_at(request: Request, video_id: _Id) -> Any:
    """How far a job is."""
    service = service_of(request)
    return shown(service, video_job(service, video_id))


@router.delete(
    "/{video_id}",
    response_model=Deleted,
    responses=responses(404, 507),
    summary="Cancel or remove a job",
)
async def delete(request: Request, video_id: _Id) -> Any:
    """Cancels a job between two steps; removes it, with its files, if it has come to its end."""
    service = service_of(request)
    job = video_job(service, video_id)
    await anyio.to_thread.run_sync(service.delete, job.id)
    return {"id": job.id}


@router.get(
    "/{video_id}/content",
    response_class=FileResponse,
    responses=responses(404, 406, 409, 507) | CONTENTS,
    summary="Fetch a clip",
)
async def content(request: Request, video_id: _Id, format: _Form = None) -> Any:
    """The clip as GIF, MP4 or WebP; `content.mp4` and so on are the same."""
    service, form = service_of(request), form_asked_for(request, format)
    return await file_of(service, video_job(service, video_id), form)


@router.get(
    "/{video_id}/content.{ending}",
    response_class=FileResponse,
    responses=responses(404, 409, 507) | CONTENTS,
    summary="Fetch a clip by its ending",
)
async def content_by_ending(
    request: Request, video_id: _Id, ending: Literal["gif", "mp4", "webp"]
) -> Any:
    """The clip in that form."""
    service = service_of(request)
    return await file_of(service, video_job(service, video_id), ending)


@router.get(
    "/{video_id}/events",
    response_class=StreamingResponse,
    responses=responses(404, 429, 503)
    | {200: {"content": {"text/event-stream": {"schema": EVENT_SCHEMA}}}},
    summary="Follow a job",
)
async def followed(request: Request, video_id: _Id) -> Any:
    """Server-sent events: the job whenever it stands otherwise, until it comes to its end."""
    service = service_of(request)
    job = video_job(service, video_id)
    return events(request, service, job)


def failed_job(job: Job) -> Refusal:
    """Why there is no result, for somebody who waited for it."""
    error = job.error or {"code": "cancelled", "message": "The job was cancelled."}
    failure = NotReady(error["message"])
    failure.code = error["code"]
    failure.status = _STATUS_OF_FAILURES.get(error["code"], NotReady.status)
    return failure
