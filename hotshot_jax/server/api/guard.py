"""Who may ask: looked at before anything of a request is read.

* Without a key only this machine is served, and the name that a browser looked up has to be this
  machine's: a page elsewhere could otherwise have its own name point here (DNS rebinding).
* A page of another origin is refused, also where the browser would not ask first.
* With a key, all but `/health` needs it, or a session of a browser that sent it once.
* A body ends where the limit is, however long it claims to be.
"""

import dataclasses
import hmac
import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import anyio
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hotshot_jax.server.api.errors import error_response
from hotshot_jax.server.api.session import has_session
from hotshot_jax.server.failures import ShuttingDown
from hotshot_jax.server.worker import log_without_words

OPEN_PATHS = ("/health",)
"""What balancers ask, which have no key."""

_LOOKS_EVERY_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        api_key: what has to be sent as `Authorization: Bearer KEY`; None for nothing.
        origins: of other pages that may ask, such as `https://example.com`.
        most_body_bytes: of a request.
        seconds_of_a_body: that it may take to arrive.
        login_path: where a browser sends the key, if there is such a page; it needs none.
        any_host: whether everybody is served without a key, by whatever name, and in frames of
            other pages.
    """

    api_key: str | None = dataclasses.field(default=None, repr=False)
    origins: tuple[str, ...] = ()
    most_body_bytes: int = 64 << 20
    seconds_of_a_body: float = 300.0
    login_path: str | None = None
    any_host: bool = False


class Guard:
    """Looks at every request first; sees to it that a mistake is told in the API's shape.

    Args:
        app: what is guarded.
        access: who may ask.
        closing: whether the server shuts down, so that what has not arrived is not waited for.
    """

    def __init__(self, app: ASGIApp, access: Access, closing: Callable[[], bool]):
        self._app = app
        self._access = access
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        refused = self._refusal(scope, headers)
        if refused is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            else:
                await refused(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, self._limited(receive), watched)
        except Exception as error:
            log_without_words(error)
            if begun or scope["type"] != "http":
                # The connection ends, which is all that can still be told.
                return
            failed = error_response(500, "The server made a mistake.", "server_error")
            await failed(scope, receive, send)

    def _refusal(self, scope: Scope, headers: Headers) -> Any:
        key, origin = self._access.api_key, headers.get("origin")
        everybody, login = self._access.any_host, self._access.login_path
        if key is None and not (everybody or _is_this_machine(headers.get("host", ""))):
            return error_response(
                403,
                "Without a key only this machine is served, by the names localhost and 127.0.0.1.",
                "host_not_allowed",
            )
        if not self._is_own(origin, headers) and not _is_link(scope, headers, framed=everybody):
            return error_response(
                403, "Pages of other origins are not served.", "origin_not_allowed"
            )
        if (
            key is not None
            and scope["path"] not in (*OPEN_PATHS, login)
            and not (_has_key(headers, key) or has_session(headers, key))
        ):
            if (
                login is not None
                and scope["path"] == "/"
                and "text/html" in headers.get("accept", "")
            ):
                return RedirectResponse(login, 303)
            return error_response(
                401,
                "The key is missing or wrong: send it as Authorization: Bearer KEY.",
                "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length[:20]) > self._access.most_body_bytes:
            return _too_large_response(self._access.most_body_bytes)
        return None

    def _is_own(self, origin: str | None, headers: Headers) -> bool:
        if origin is None:
            return headers.get("sec-fetch-site") in (None, "same-origin", "none")
        if origin in self._access.origins:
            return True
        try:
            return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
        except ValueError:
            return False

    def _limited(self, receive: Receive) -> Callable[[], Any]:
        read = 0
        until = anyio.current_time() + self._access.seconds_of_a_body
        finished = False

        async def limited() -> Message:
            nonlocal read, finished
            if finished:
                # Waits for the end of the connection, which takes as long as it takes.
                return await receive()
            message = await self._next(receive, until)
            if message["type"] == "http.request":
                read += len(message.get("body", b""))
                finished = not message.get("more_body", False)
                if read > self._access.most_body_bytes:
                    raise HTTPException(413, _too_large(self._access.most_body_bytes))
            return message

        return limited

    async def _next(self, receive: Receive, until: float) -> Message:
        while (left := until - anyio.current_time()) > 0:
            if self._closing():
                raise ShuttingDown("The server is shutting down. Try again in a while.")
            with anyio.move_on_after(min(left, _LOOKS_EVERY_SECONDS)):
                return await receive()
        raise HTTPException(408, "The request took too long to arrive.")


def _is_link(scope: Scope, headers: Headers, *, framed: bool) -> bool:
    """Whether a person follows a link to here, of which the page that has it sees nothing."""
    shown_in = ("document", "iframe") if framed else ("document",)
    document = headers.get("sec-fetch-dest") in shown_in and "origin" not in headers
    return document and scope.get("method") in ("GET", "HEAD")


def _has_key(headers: Headers, key: str) -> bool:
    scheme, _, given = headers.get("authorization", "").partition(" ")
    # Headers are Latin-1, and the comparison takes as long whatever is given.
    same = hmac.compare_digest(given.strip().encode("latin-1"), key.encode())
    return scheme.lower() == "bearer" and same


def _is_this_machine(host: str) -> bool:
    try:
        name = "" if "@" in host else urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _too_large(most: int) -> str:
    return f"The request has more than {most / 2**20:g} MiB, which is what this server takes."


def _too_large_response(most: int) -> Any:
    return error_response(413, _too_large(most), "content_too_large")
