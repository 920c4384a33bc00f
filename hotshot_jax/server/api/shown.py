"""Jobs as the API shows them."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hotshot_jax.server.job import Job, Status
from hotshot_jax.server.service import Service

_EXAMPLE: dict[str, Any] = {
    "id": "video_0123456789abcdef0123456789abcdef",
    "object": "video",
    "model": "the built-in model",
    "status": "in_progress",
    "progress": 42,
    "stage": "denoising",
    "seconds_left": 1.7,
    "prompt": "a yellow star spinning on a teal background",
    "size": "128x128",
    "seconds": "1",
    "num_frames": 8,
    "seed": 3141592653,
    "created_at": 1767225600,
}


class JobError(BaseModel):
    """Why a job failed."""

    code: str
    message: str


class Video(BaseModel):
    """A job."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    id: str
    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(0, ge=0, le=100, description="In percent.")
    stage: str | None = Field(None, description="Such as `compiling` or `denoising`.")
    seconds_left: float | None = None
    queue_position: int | None = Field(None, description="1 is the next.")
    note: str | None = None
    prompt: str
    size: str
    seconds: str
    num_frames: int
    seed: int
    num_inference_steps: int
    guidance_scale: float | dict[str, float]
    created_at: int
    started_at: int | None = None
    completed_at: int | None = None
    expires_at: int | None = Field(None, description="When it is removed, at the latest.")
    error: JobError | None = None
    warnings: list[str] | None = None


class Videos(BaseModel):
    """Some jobs."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool = False


class Deleted(BaseModel):
    """A job that nobody wants any more."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True


def shown(service: Service, job: Job) -> dict[str, Any]:
    """A job, with how far it is.

    Args:
        service: that it is of.
        job: as it stands.
    """
    told = dict(job.told)
    warnings = [*told.pop("warnings", []), *job.warnings]
    content: dict[str, Any] = {
        "id": job.id,
        "object": "video",
        "status": job.status,
        "progress": 100 if job.status == Status.COMPLETED else 0,
        "created_at": int(job.created_at),
        **told,
    }
    if not job.finished:
        content |= service.standing(job.id)
    for name, moment in (("started_at", job.started_at), ("completed_at", job.completed_at)):
        if moment is not None:
            content[name] = int(moment)
    if job.completed_at is not None:
        content["expires_at"] = int(job.completed_at + service.limits.kept_seconds)
    if job.error is not None:
        content["error"] = dict(job.error)
    if warnings:
        content["warnings"] = warnings
    return content
