"""What of Gradio can be reached: what its page needs, and nothing else.

Gradio has more endpoints than that: for programs, which have the API of this server; for files and
addresses that a client names; for its own proxy. They are not there at all.
"""

import json
import re
from pathlib import Path
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount, get_route_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hotshot_jax.files.parsed import ParseError, parse_json

_PAGES = re.compile(
    r"/|/config|/theme\.css|/favicon\.ico|/manifest\.json|/(assets|static|svelte)/.+|"
    r"/gradio_api/(queue/data|startup-events|heartbeat/[a-z0-9]+)"
)
_CALLS = re.compile(r"/gradio_api/(queue/join|cancel|reset)")
_FILE = "/gradio_api/file="
_MOST_BYTES = 1 << 20
# Gradio makes code of texts, all of which are its own and this page's.
_POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)


class PageMount(Mount):
    """The mount of Gradio's app, which leaves all other paths to the routes beside it.

    Args:
        app: Gradio's.
        uploads: the folder of what was uploaded, which alone is shown.
        framed: whether pages of others may show it within theirs.
    """

    def __init__(self, app: ASGIApp, uploads: Path, *, framed: bool = False):
        super().__init__("/", app)
        self._policy = _POLICY if framed else f"{_POLICY}; frame-ancestors 'self'"
        self._uploads = uploads.resolve()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See `Mount`."""
        if scope["type"] != "http" or not self._is_reachable(scope):
            return Match.NONE, {}
        return super().matches(scope)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `Mount`.

        Raises:
            HTTPException: a call names a file that was not uploaded here, or is no call.
        """
        if scope["method"] == "POST":
            receive = self._read_again(await self._checked_body(receive))

        async def confined(message: Message) -> None:
            # The browser sees to it that nothing of others is fetched.
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = self._policy
            await send(message)

        await super().handle(scope, receive, confined)

    def _is_reachable(self, scope: Scope) -> bool:
        path, method = get_route_path(scope), scope["method"]
        if method == "POST":
            return _CALLS.fullmatch(path) is not None
        if method not in ("GET", "HEAD") or ".." in path:
            return False
        if path.startswith(_FILE):
            return self._was_uploaded(path.removeprefix(_FILE))
        return _PAGES.fullmatch(path) is not None

    def _was_uploaded(self, path: str) -> bool:
        if "\0" in path:
            return False
        return Path(path).is_absolute() and Path(path).resolve().is_relative_to(self._uploads)

    async def _checked_body(self, receive: Receive) -> bytes:
        content = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                break
            content += message.get("body", b"")
            more = message.get("more_body", False)
            if len(content) > _MOST_BYTES:
                raise HTTPException(413, "That is more than the page sends.")
        try:
            call = parse_json(bytes(content))
        except ParseError as error:
            raise HTTPException(400, f"The call {error}.") from error
        if not self._names_uploads_only(call):
            raise HTTPException(400, "Only files that were uploaded here can be used.")
        # Gradio's own reader could see another of two equal keys.
        return json.dumps(call).encode()

    def _names_uploads_only(self, value: Any) -> bool:
        if isinstance(value, list):
            return all(map(self._names_uploads_only, value))
        if not isinstance(value, dict):
            return True
        path = value.get("path")
        if path is not None and not (isinstance(path, str) and self._was_uploaded(path)):
            return False
        return all(map(self._names_uploads_only, value.values()))

    def _read_again(self, content: bytes) -> Receive:
        messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

        async def receive() -> Message:
            return messages.pop() if messages else {"type": "http.disconnect"}

        return receive
