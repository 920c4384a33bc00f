"""Fetching a clip from the web, within limits and from public addresses only."""

import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.reading.public_address import is_public

_SCHEME = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE = 1 << 16
# Of what a server says, in messages.
_SHOWN = 100
# What may stand in a request as it is; the rest, such as umlauts and blanks, is escaped.
_UNESCAPED = "%/:=&?~+!$,;'@()*[]-._"


@dataclass(frozen=True)
class FetchLimits:
    """What a download may take before it is given up.

    Attributes:
        most_bytes: size of the file.
        most_seconds: time for everything, redirects included.
        most_redirects: how often a server may send on to another address.
        allow_private: whether addresses of this machine and of private networks may be asked.
    """

    most_bytes: int = 200_000_000
    most_seconds: float = 60.0
    most_redirects: int = 5
    allow_private: bool = False


def is_url(source: str) -> bool:
    """Tell whether a source is meant as a URL, of whichever scheme, and not as a path."""
    return _SCHEME.match(source) is not None


def fetch(url: str, file: Path, limits: FetchLimits) -> None:
    """Download a URL to a file.

    Addresses are checked after the name is resolved, at each redirect, and the connection goes to
    the address that was checked. Proxies are not used, since they resolve names by themselves.

    Args:
        url: http or https.
        file: where to write it; overwritten.
        limits: when to give up.

    Raises:
        UsageError: the URL is not http or https, malformed, or has a private address.
        HotshotError: it cannot be fetched within the limits. The message names the URL.
    """
    deadline = time.monotonic() + limits.most_seconds
    current = url
    for _ in range(limits.most_redirects + 1):
        parts = _checked_parts(current)
        address, port = _resolve(parts, current, limits)
        with _explained(current, deadline, limits):
            following = _request(parts, (address, port), current, file, limits, deadline)
        if following is None:
            return
        current = _redirected(current, following)
    raise HotshotError(
        f"{url}: more than {limits.most_redirects} redirects. Download the clip first and give "
        "its path."
    )


def _redirected(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise UsageError(
            f"{url} leads to {location[:_SHOWN]}, which is not a valid URL: {error}."
        ) from error


def _checked_parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError as error:
        raise UsageError(f"{url} is not a valid URL: {error}.") from error
    if parts.scheme.lower() not in ("http", "https"):
        raise UsageError(
            f"{url}: only http:// and https:// are fetched. Give the path of a file on this "
            "machine as it is."
        )
    if not parts.hostname:
        raise UsageError(f"{url} names no host; expected http://HOST/PATH or https://HOST/PATH.")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"The URL on {parts.hostname} holds a user name or password, which would be stored in "
            "the result. Download the clip first and give its path."
        )
    return parts


def _resolve(parts: SplitResult, url: str, limits: FetchLimits) -> tuple[str, int]:
    port = parts.port or (443 if parts.scheme.lower() == "https" else 80)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HotshotError(
            f"{url}: the host {parts.hostname} cannot be found ({reason}). Check its name and the "
            "network, or download the clip first and give its path."
        ) from error
    # Each address, so that a name with one public address cannot lead to a private one.
    addresses = [str(entry[4][0]) for entry in found]
    for address in addresses:
        if not limits.allow_private and not is_public(address):
            raise UsageError(
                f"{url}: {parts.hostname} is at {address}, an address of this machine or of a "
                "private network. `allow_private_urls` allows it."
            )
    return addresses[0], port


@contextmanager
def _explained(url: str, deadline: float, limits: FetchLimits) -> Iterator[None]:
    try:
        yield
    except (OSError, http.client.HTTPException, ValueError) as error:
        # Whatever the stream says once the time is up, the time is why.
        if time.monotonic() >= deadline or isinstance(error, TimeoutError):
            raise _too_slow(url, limits) from error
        if isinstance(error, OSError) and error.filename is not None:
            raise
        if isinstance(error, http.client.InvalidURL | ValueError):
            raise UsageError(f"{url} is not a valid URL: {error}.") from error
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise HotshotError(
            f"{url} cannot be fetched: {reason}. Try again, or download the clip first and give "
            "its path."
        ) from error


def _too_slow(url: str, limits: FetchLimits) -> HotshotError:
    return HotshotError(
        f"{url} was not fetched within {limits.most_seconds:g} seconds. Download the clip first "
        "and give its path."
    )


def _request(
    parts: SplitResult,
    address: tuple[str, int],
    url: str,
    file: Path,
    limits: FetchLimits,
    deadline: float,
) -> str | None:
    """Asks one server; gives where it sends on to, or None once the file is written."""
    remaining = max(0.001, deadline - time.monotonic())
    stream = socket.create_connection(address, timeout=remaining)
    # A server that sends a byte now and then never runs into the timeout of a single read.
    watch = threading.Timer(max(0.001, deadline - time.monotonic()), _hang_up, [stream])
    watch.daemon = True
    watch.start()
    try:
        if parts.scheme.lower() == "https":
            context = ssl.create_default_context()
            stream = context.wrap_socket(stream, server_hostname=parts.hostname)
            watch.args = [stream]
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, address[1])
        connection.sock = stream
        target = quote(parts.path or "/", safe=_UNESCAPED)
        if parts.query:
            target += "?" + quote(parts.query, safe=_UNESCAPED)
        headers = {
            "Host": _host(parts),
            "Accept-Encoding": "identity",
            "User-Agent": "hotshot-jax",
            "Connection": "close",
        }
        connection.request("GET", target, headers=headers)
        with connection.getresponse() as response:
            if response.status in _REDIRECTS and response.headers["Location"]:
                return str(response.headers["Location"])
            if response.status != 200:
                raise HotshotError(
                    f"{url}: the server answers {response.status} "
                    f"{response.reason[:_SHOWN]}. Check the "
                    "address, or download the clip first and give its path."
                )
            _save(response, url, file, limits, deadline)
            return None
    finally:
        watch.cancel()
        stream.close()


def _host(parts: SplitResult) -> str:
    assert parts.hostname is not None
    name = parts.hostname if parts.hostname.isascii() else parts.hostname.encode("idna").decode()
    name = f"[{name}]" if ":" in name else name
    return name if parts.port is None else f"{name}:{parts.port}"


def _hang_up(stream: socket.socket) -> None:
    # It may have ended by itself.
    with suppress(OSError):
        stream.shutdown(socket.SHUT_RDWR)


def _save(
    response: http.client.HTTPResponse,
    url: str,
    file: Path,
    limits: FetchLimits,
    deadline: float,
) -> None:
    too_large = HotshotError(
        f"{url} is larger than {limits.most_bytes // 1_000_000} MB. Cut the part that you want "
        "first and give its path."
    )
    expected = response.length
    if expected is not None and expected > limits.most_bytes:
        raise too_large
    size = 0
    with file.open("wb") as out:
        while piece := response.read1(_PIECE):
            size += len(piece)
            if size > limits.most_bytes:
                raise too_large
            if time.monotonic() >= deadline:
                break
            out.write(piece)
    if time.monotonic() >= deadline:
        raise _too_slow(url, limits)
    if expected is not None and size < expected:
        raise HotshotError(f"{url}: the connection ended after {size} of {expected} bytes.")
