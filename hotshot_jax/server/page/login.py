"""Where a browser sends the key, once, and has a session for it."""

import hmac
import urllib.parse

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from hotshot_jax.server.api.session import COOKIE, SECONDS, new_session

LOGIN_PATH = "/login"
_MOST_BYTES = 4096
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>hotshot-jax: key</title>
<style>
:root {{ color-scheme: light dark; font: 1rem/1.5 system-ui, sans-serif }}
main {{ max-width: 24rem; margin: 15vh auto; padding: 0 1rem }}
input, button {{ font: inherit; width: 100%; padding: .5rem; margin: .3rem 0 }}
input, button {{ box-sizing: border-box }}
</style>
</head>
<body>
<main>
<h1>hotshot-jax</h1>
<form method="post" action="login">
<p role="alert">{message}</p>
<label for="key">Key of this server</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Open the page</button>
</form>
</main>
</body>
</html>
"""


def login_router(key: str) -> APIRouter:
    """The form for the key.

    Args:
        key: of the server.
    """
    router = APIRouter(include_in_schema=False)

    @router.get(LOGIN_PATH)
    async def form() -> Response:
        return _form()

    @router.post(LOGIN_PATH)
    async def login(request: Request) -> Response:
        content = bytearray()
        async for part in request.stream():
            content += part
            if len(content) > _MOST_BYTES:
                return _form("That is too long for a key.", 413)
        fields = urllib.parse.parse_qs(content.decode("latin-1"), encoding="latin-1")
        given = fields.get("key", [""])[0].strip()
        if not hmac.compare_digest(given.encode("latin-1", "replace"), key.encode()):
            return _form("That is not the key.", 401)
        answer = RedirectResponse("./", 303)
        answer.set_cookie(
            COOKIE,
            new_session(key),
            max_age=SECONDS,
            httponly=True,
            samesite="strict",
            secure=request.url.scheme == "https",
        )
        return answer

    return router


def _form(message: str = "", status: int = 200) -> Response:
    content = _PAGE.format(message=message)
    return HTMLResponse(content, status, {"Cache-Control": "no-store"})
