"""Reading the body of a request: JSON, or a form with files."""

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import anyio.to_thread
from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException

from hotshot_jax.files.parsed import ParseError, parse_json
from hotshot_jax.server.api.errors import WrongBody
from hotshot_jax.server.failures import BadRequest, Refusal
from hotshot_jax.server.request import UPLOADS, upload_name
from hotshot_jax.server.store import room_needed

_MOST_FIELDS = 200
_MOST_FILES = 64
# Of JSON and of a form's fields; files are not among them.
_MOST_TEXT_BYTES = 4 << 20
# Each that is wrong costs a lot more to be told of than to be sent. A prompt for each frame of a
# long clip is far fewer.
_MOST_VALUES = 10_000

Model = TypeVar("Model", bound=BaseModel)


class WrongMediaType(Refusal):
    """The body is of a kind that is not read."""

    status = 415
    code = "unsupported_media_type"


class Received:
    """A request as it was read.

    Args:
        folder: of the files; they are gone when the request ends, unless they are moved.
        uploads: files by their names in the API.
    """

    def __init__(self, folder: Path, uploads: Mapping[str, Path]):
        self.uploads = dict(uploads)
        self._folder = folder

    def move(self, place: Path) -> None:
        """Moves the files.

        Args:
            place: the folder that they become.
        """
        if self.uploads:
            shutil.copytree(self._folder, place)


@contextlib.asynccontextmanager
async def received(
    request: Request, kind: type[Model], *, files: bool
) -> AsyncIterator[tuple[Model, Received]]:
    """Reads a request.

    Args:
        request: the request.
        kind: what its values are to be.
        files: whether it may be a form with files.

    Raises:
        WrongMediaType: it is neither JSON nor such a form.
        WrongBody: a value is not of the right form.
        BadRequest: it cannot be read, or has a file that nothing is known of.
        NoRoom: the disk is full.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    with tempfile.TemporaryDirectory(prefix="hotshot-jax-") as name:
        folder = Path(name)
        values: Any
        uploads: dict[str, Path] = {}
        if media_type == "application/json":
            values = await _json(request)
        elif files and media_type == "multipart/form-data":
            with room_needed():
                values, uploads = await _form(request, kind, folder)
        else:
            expected = "application/json" + (" or multipart/form-data" if files else "")
            raise WrongMediaType(f"The Content-Type of the request has to be {expected}.")
        try:
            asked = kind.model_validate(values)
        except ValidationError as error:
            raise WrongBody.of(error) from error
        yield asked, Received(folder, uploads)


async def _json(request: Request) -> Any:
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > _MOST_TEXT_BYTES:
            raise BadRequest(f"JSON may have up to {_MOST_TEXT_BYTES >> 20} MiB.")
    try:
        return await anyio.to_thread.run_sync(_few_values, bytes(content))
    except ParseError as error:
        raise BadRequest(f"The request {error}.") from error


def _few_values(text: str | bytes) -> Any:
    """JSON of a size that somebody could have written.

    Raises:
        ParseError: it is none, or holds more values.
    """
    parsed = parse_json(text)
    count, level = 0, [parsed]
    while level:
        count += len(level)
        if count > _MOST_VALUES:
            raise ParseError(f"holds more than {_MOST_VALUES} values")
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner += each.values()
            elif isinstance(each, list):
                inner += each
        level = inner
    return parsed


async def _form(
    request: Request, kind: type[BaseModel], folder: Path
) -> tuple[dict[str, Any], dict[str, Path]]:
    values: dict[str, Any] = {}
    uploads: dict[str, Path] = {}
    try:
        async with request.form(
            max_files=_MOST_FILES, max_fields=_MOST_FIELDS, max_part_size=_MOST_TEXT_BYTES
        ) as form:
            for part, value in form.multi_items():
                if isinstance(value, UploadFile):
                    uploads |= await _uploaded(part, value, folder, uploads)
                elif part in values:
                    raise BadRequest(f"{part} is given twice; give it once.")
                else:
                    values[part] = _parsed(kind, part, value)
    except MultiPartException as error:
        raise BadRequest(f"The form cannot be read: {error.message}.") from error
    # The parser of forms raises errors of its own and Python's on what is no form.
    except (ValueError, KeyError, LookupError, AttributeError) as error:
        raise BadRequest("The form cannot be read.") from error
    return values, uploads


async def _uploaded(
    part: str, file: UploadFile, folder: Path, others: Mapping[str, Path]
) -> dict[str, Path]:
    name = upload_name(part)
    if name is None:
        known = ", ".join((*UPLOADS, "frame_at_N"))
        raise BadRequest(f"There is no use for that file; those that can be sent are {known}.")
    if name in others:
        raise BadRequest(f"{name} is sent twice; send it once.")
    # The name that the sender has for it is not looked at.
    path = folder / name
    with path.open("wb") as kept:
        await anyio.to_thread.run_sync(shutil.copyfileobj, file.file, kept)
    return {name: path}


def _parsed(kind: type[BaseModel], name: str, text: str) -> Any:
    """A field of a form; what is no text is JSON."""
    field = kind.model_fields.get(name)
    if field is None or str in _types(field.annotation):
        return text
    try:
        return _few_values(text)
    except ParseError:
        # For pydantic to say what it should be.
        return text


def _types(annotation: Any) -> set[Any]:
    found = {annotation}
    for each in getattr(annotation, "__args__", ()):
        found |= _types(each) if not isinstance(each, str) else {str}
    origin = getattr(annotation, "__origin__", None)
    return found if origin not in (dict, list, tuple) else {origin}
