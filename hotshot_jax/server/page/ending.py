"""Streams of a page that is open, which would otherwise go on until the server is killed."""

from collections.abc import Callable

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOOKS_EVERY_SECONDS = 0.2
# For the page to say so.
_SECONDS_TO_END = 1.0


class Ending:
    """Answers as an app does, and ends what it still says when the server shuts down.

    Args:
        app: the app.
        closing: whether the server shuts down.
    """

    def __init__(self, app: ASGIApp, closing: Callable[[], bool]):
        self._app = app
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        begun = finished = False

        async def watched(message: Message) -> None:
            nonlocal begun, finished
            begun = True
            finished = message["type"] == "http.response.body" and not message.get("more_body")
            await send(message)

        async with anyio.create_task_group() as group:
            group.start_soon(self._end, group.cancel_scope)
            await self._app(scope, receive, watched)
            group.cancel_scope.cancel()
        if begun and not finished:
            await send({"type": "http.response.body", "body": b""})

    async def _end(self, scope: anyio.CancelScope) -> None:
        while not self._closing():
            await anyio.sleep(_LOOKS_EVERY_SECONDS)
        await anyio.sleep(_SECONDS_TO_END)
        scope.cancel()
