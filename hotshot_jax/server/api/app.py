"""The app: endpoints, errors, and the guard in front of them."""

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from hotshot_jax.server.api import about, images, videos
from hotshot_jax.server.api.errors import add_error_handlers
from hotshot_jax.server.api.guard import Access, Guard
from hotshot_jax.server.service import Service
from hotshot_jax.version import __version__

_DESCRIPTION = """Text to GIF, in the shape of vLLM-Omni's and OpenAI's endpoints for videos and
images. `POST /v1/videos` makes a job; `GET /v1/videos/{video_id}` tells how far it is, and
`/content` gives the clip."""


def create_app(service: Service, access: Access | None = None) -> FastAPI:
    """The app of a service, on which a page may be mounted.

    The service is started and stopped by whoever runs the app.

    Args:
        service: takes the jobs.
        access: who may ask.
    """
    access = access or Access(most_body_bytes=service.limits.most_body_bytes)
    # FastAPI's own pages fetch scripts from elsewhere.
    app = FastAPI(
        title="hotshot-jax",
        version=__version__,
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
    )
    for router in (videos.router, images.router, about.router):
        app.include_router(router)
    return guarded(app, service, access)


def guarded(app: FastAPI, service: Service, access: Access) -> FastAPI:
    """An app with errors in one shape, and the guard in front of it.

    Args:
        app: the app.
        service: that it serves.
        access: who may ask.
    """
    app.state.service = service
    add_error_handlers(app)
    # The last to be added sees a request first.
    app.add_middleware(Guard, access=access, closing=lambda: service.closing)
    if access.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(access.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type"],
        )
    return app
