"""Files that are dropped on the page, until they become part of a job."""

import secrets
import shutil
import time
from pathlib import Path

import anyio.to_thread
from fastapi import APIRouter, Request
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException
from starlette.responses import Response

from hotshot_jax.server.failures import BadRequest, NoRoom
from hotshot_jax.server.store import size_of

_MOST_FILES = 8
_KEPT_SECONDS = 3600.0
_MOST_BYTES = 1 << 30
# By how a file begins; the name that its sender has for it is not looked at.
_ENDINGS = (
    (b"GIF8", "gif"),
    (b"\x89PNG", "png"),
    (b"\xff\xd8\xff", "jpg"),
    (b"RIFF", "webp"),
    (b"ftyp", "mp4"),
)


def uploads_router(folder: Path) -> APIRouter:
    """Takes files as Gradio's page sends them, in place of Gradio.

    Args:
        folder: where they are kept, for an hour.
    """
    router = APIRouter(include_in_schema=False)

    @router.post("/gradio_api/upload")
    async def upload(request: Request) -> list[str]:
        await anyio.to_thread.run_sync(_make_room, folder)
        try:
            async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FILES) as form:
                files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
                return [await anyio.to_thread.run_sync(_kept, folder, file) for file in files]
        except MultiPartException as error:
            raise BadRequest(f"The form cannot be read: {error.message}.") from error
        except OSError as error:
            raise NoRoom(f"The server cannot keep this: {error.strerror}.") from error

    @router.get("/gradio_api/upload_progress")
    async def progress() -> Response:
        # How far an upload is, the browser knows itself.
        return Response('data: {"msg": "done"}\n\n', media_type="text/event-stream")

    return router


def _kept(folder: Path, file: UploadFile) -> str:
    begin = file.file.read(12)
    file.file.seek(0)
    ending = next((name for mark, name in _ENDINGS if mark in (begin[: len(mark)], begin[4:8])), "")
    if not ending:
        raise BadRequest("That is no picture or clip: GIF, WebP, MP4, PNG and JPEG are read.")
    place = folder / secrets.token_hex(16)
    place.mkdir()
    path = place / f"upload.{ending}"
    with path.open("wb") as kept:
        shutil.copyfileobj(file.file, kept)
    return str(path)


def _make_room(folder: Path) -> None:
    """Removes what is old.

    Raises:
        NoRoom: what is not takes too much.
    """
    for place in folder.iterdir():
        if time.time() - place.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(place, ignore_errors=True)
    if size_of(folder) > _MOST_BYTES:
        raise NoRoom("Too many files were sent lately. Try again in an hour.")
