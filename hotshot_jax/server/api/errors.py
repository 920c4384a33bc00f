"""Every error in one shape: `{"error": {"message": ..., "type": ..., "code": ...}}`."""

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from hotshot_jax.files.printable import printable
from hotshot_jax.server.failures import Refusal

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_MOST_TOLD = 5
_MOST_CHARACTERS = 2000


class ErrorContent(BaseModel):
    """What went wrong."""

    message: str = Field(examples=["`num_frames` is 4096; this server makes up to 128."])
    type: str = Field(examples=["invalid_request_error"])
    code: str = Field(examples=["invalid_value"])


class ErrorBody(BaseModel):
    """An error."""

    error: ErrorContent


def error_content(status: int, message: str, code: str) -> dict[str, Any]:
    """The body of an error.

    Args:
        status: of HTTP.
        message: for a person.
        code: for a program.
    """
    message = printable(message, _MOST_CHARACTERS)
    usual = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message, "type": _TYPES.get(status, usual), "code": code}}


def error_response(
    status: int, message: str, code: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """An error as it is sent; see `error_content`."""
    return JSONResponse(error_content(status, message, code), status, headers)


def wrong_body(errors: Iterable[Any]) -> str:
    """What is wrong with the values of a request, without the values themselves.

    Args:
        errors: as pydantic lists them.
    """
    told = [
        f"{'.'.join(str(part) for part in error['loc'] if part != 'body') or 'the request'}: "
        f"{str(error['msg']).removeprefix('Value error, ')}"
        for error in errors
    ]
    more = f" (and {len(told) - _MOST_TOLD} more)" if len(told) > _MOST_TOLD else ""
    return "; ".join(dict.fromkeys(told[:_MOST_TOLD])) + more + "."


class WrongBody(Refusal):
    """The values of a request are not of the right form."""

    status = 422
    code = "invalid_request"

    @classmethod
    def of(cls, error: ValidationError) -> "WrongBody":
        """What pydantic found."""
        return cls(wrong_body(error.errors(include_url=False, include_input=False)))


def add_error_handlers(app: FastAPI) -> None:
    """Has every error of an app sent in this shape."""

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        app.state.service.metrics.refused.labels(error.code).inc()
        headers = {}
        if error.retry_after is not None:
            headers["Retry-After"] = str(error.retry_after)
        return error_response(error.status, str(error), error.code, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return error_response(422, wrong_body(error.errors()), WrongBody.code)

    @app.exception_handler(HTTPException)
    async def by_http(request: Request, error: HTTPException) -> JSONResponse:
        phrase = HTTPStatus(error.status_code).phrase
        code = phrase.lower().replace(" ", "_")
        message = error.detail if error.detail != phrase else f"{phrase}."
        return error_response(error.status_code, str(message), code, error.headers)


def responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """These errors, for the schema of an endpoint."""
    every = sorted({*statuses, 401, 403, 422})
    return {
        status: {"model": ErrorBody, "description": HTTPStatus(status).phrase} for status in every
    }
