"""What is served, whether it works, and its numbers."""

from typing import Any, Literal

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel

from hotshot_jax.server.api.errors import responses
from hotshot_jax.server.api.videos import service_of

router = APIRouter(tags=["about"])


class Health(BaseModel):
    """Whether jobs are made."""

    status: Literal["ok", "stopping"]


class Model(BaseModel):
    """A model, with what can be asked for beside it."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "hotshot-jax"
    loras: list[str] = []
    controlnets: list[str] = []


class Models(BaseModel):
    """What is served."""

    object: Literal["list"] = "list"
    data: list[Model]


@router.get("/health", response_model=Health, responses={**responses(), 503: {"model": Health}})
async def health(request: Request) -> Any:
    """Whether jobs are made; needs no key."""
    healthy = service_of(request).healthy
    return JSONResponse({"status": "ok" if healthy else "stopping"}, 200 if healthy else 503)


@router.get("/v1/models", response_model=Models, responses=responses())
async def models(request: Request) -> Any:
    """The model that is served, and the LoRAs and ControlNets that can be named."""
    served = service_of(request).served
    model = {"id": served.id, "loras": served.loras, "controlnets": served.controlnets}
    return {"data": [model]}


@router.get(
    "/metrics",
    response_class=Response,
    responses={**responses(), 200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def metrics(request: Request) -> Any:
    """Numbers for Prometheus."""
    content = service_of(request).metrics.text()
    return Response(content, media_type="text/plain; version=0.0.4; charset=utf-8")
