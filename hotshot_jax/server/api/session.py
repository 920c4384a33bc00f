"""What a browser has in place of the key: pictures are fetched without headers of ours.

A session is when it ends, and a signature of that by the key (HMAC-SHA256). It is of no use once
the key is another.
"""

import hashlib
import hmac
import time
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers

COOKIE = "hotshot_jax_session"
SECONDS = 30 * 24 * 3600
"""How long a session lasts."""


def new_session(key: str) -> str:
    """A session for whoever has the key."""
    return _signed(key, int(time.time()) + SECONDS)


def has_session(headers: Headers, key: str) -> bool:
    """Whether a request is of a session that has not ended.

    Args:
        headers: of the request.
        key: of the server.
    """
    try:
        given = SimpleCookie(headers.get("cookie", ""))[COOKIE].value
        until = int(given.partition(".")[0][:20])
    except (CookieError, KeyError, ValueError):
        return False
    same = hmac.compare_digest(given.encode("utf-8", "replace"), _signed(key, until).encode())
    return same and time.time() < until


def _signed(key: str, until: int) -> str:
    told = f"session {until}".encode()
    return f"{until}.{hmac.new(key.encode(), told, hashlib.sha256).hexdigest()}"
