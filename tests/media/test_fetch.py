"""Fetching clips: from a server on this machine, which a flag has to allow."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.media.reading import fetch as fetching
from hotshot_jax.media.reading.fetch import FetchLimits, fetch, is_url
from tests.web_server import WebServer, serving

ALLOWED = FetchLimits(allow_private=True, most_seconds=5.0)


@pytest.fixture(scope="module")
def server() -> Iterator[WebServer]:
    with serving() as running:
        yield running


def _fetch(url: str, tmp_path: Path, limits: FetchLimits = ALLOWED) -> bytes:
    fetch(url, tmp_path / "clip", limits)
    return (tmp_path / "clip").read_bytes()


def test_a_file_is_fetched(server: WebServer, tmp_path: Path) -> None:
    server.files["/a clip.gif"] = b"GIF89a" * 100_000
    assert _fetch(f"{server.url}/a%20clip.gif", tmp_path) == server.files["/a clip.gif"]
    assert _fetch(f"{server.url}/a clip.gif?x=ä", tmp_path) == server.files["/a clip.gif"]


def test_redirects_are_followed(server: WebServer, tmp_path: Path) -> None:
    server.files["/end"] = b"here"
    server.redirects |= {"/1": "/2", "/2": f"{server.url}/end"}
    assert _fetch(f"{server.url}/1", tmp_path) == b"here"


def test_endless_redirects_are_refused(server: WebServer, tmp_path: Path) -> None:
    server.redirects["/loop"] = "/loop"
    with pytest.raises(HotshotError, match=r"/loop: more than 5 redirects"):
        _fetch(f"{server.url}/loop", tmp_path)


@pytest.mark.parametrize("target", ["file:///etc/passwd", "ftp://example.org/a.gif"])
def test_redirects_to_other_schemes_are_refused(
    server: WebServer, tmp_path: Path, target: str
) -> None:
    server.redirects["/out"] = target
    with pytest.raises(UsageError, match="only http:// and https://"):
        _fetch(f"{server.url}/out", tmp_path)


@pytest.mark.parametrize(
    "target", ["http://[::1", "http://[x]/", "//[", "http://a]b/", "http://a:b/"]
)
def test_redirects_to_what_is_no_url_are_refused(
    server: WebServer, tmp_path: Path, target: str
) -> None:
    server.redirects["/out"] = target
    with pytest.raises(UsageError, match="not a valid URL"):
        _fetch(f"{server.url}/out", tmp_path)


def test_redirects_to_private_addresses_are_refused(
    server: WebServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The public server is played by the local one; only the second name tells its address."""
    server.redirects["/in"] = "http://10.0.0.1/secret"
    public = fetching.is_public
    monkeypatch.setattr(fetching, "is_public", lambda a: a == "127.0.0.1" or public(a))
    with pytest.raises(UsageError, match=r"10\.0\.0\.1/secret: .* private network"):
        _fetch(f"{server.url}/in", tmp_path, FetchLimits())


def test_a_missing_file_is_named_with_the_answer(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match=r"/none\.gif: the server answers 404 Not Found"):
        _fetch(f"{server.url}/none.gif", tmp_path)


def test_a_large_file_is_refused_by_what_the_server_says(server: WebServer, tmp_path: Path) -> None:
    server.files["/large"] = bytes(2_000_001)
    with pytest.raises(HotshotError, match=r"/large is larger than 2 MB"):
        _fetch(f"{server.url}/large", tmp_path, FetchLimits(2_000_000, 5.0, allow_private=True))
    assert not (tmp_path / "clip").exists()


def test_an_endless_stream_is_cut_by_size(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match=r"/endless is larger than 1 MB"):
        _fetch(f"{server.url}/endless", tmp_path, FetchLimits(1_000_000, 5.0, allow_private=True))


@pytest.mark.parametrize("path", ["/drip", "/silent", "/drip-header"])
def test_a_slow_server_is_cut_by_time(server: WebServer, tmp_path: Path, path: str) -> None:
    """Also one that sends a byte now and then, in the headers too."""
    start = time.monotonic()
    with pytest.raises(HotshotError, match=f"{path} was not fetched within 0.5 seconds"):
        _fetch(server.url + path, tmp_path, FetchLimits(most_seconds=0.5, allow_private=True))
    assert time.monotonic() - start < 3


def test_a_connection_that_ends_early_is_told(server: WebServer, tmp_path: Path) -> None:
    with pytest.raises(HotshotError, match=r"the connection ended after 3 of 1000 bytes"):
        _fetch(f"{server.url}/cut", tmp_path)


def test_nobody_listens(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    with pytest.raises(HotshotError, match=r"cannot be fetched: Connection refused"):
        _fetch(f"http://127.0.0.1:{port}/a.gif", tmp_path)


def test_not_http_at_all(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"SSH-2.0-hello\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/"
        with pytest.raises(HotshotError, match="cannot be fetched"):
            _fetch(url, tmp_path)
        thread.join()


def test_a_certificate_is_checked(server: WebServer, tmp_path: Path) -> None:
    """The server speaks no TLS, so that a handshake with it cannot succeed."""
    with pytest.raises(HotshotError, match="cannot be fetched"):
        _fetch(server.url.replace("http:", "https:") + "/", tmp_path)


def test_without_a_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(HotshotError, match=r"the host example\.org cannot be found"):
        _fetch("https://example.org/a.gif", tmp_path)


PRIVATE = [
    "127.0.0.1",
    "127.8.8.8",
    "0.0.0.0",
    "10.0.0.5",
    "172.16.3.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "224.0.0.1",
    "::1",
    "fe80::1%eth0",
    "fd00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::a00:1",
    "2002:7f00:1::",
]


def _resolving(*addresses: str) -> Callable[..., list[Any]]:
    return lambda host, port, **_: [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses
    ]


@pytest.mark.parametrize("address", PRIVATE)
def test_names_at_private_addresses_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _resolving("8.8.8.8", address))
    monkeypatch.setattr(socket, "create_connection", lambda *_, **__: pytest.fail("connected"))
    with pytest.raises(UsageError, match="`allow_private_urls` allows it"):
        _fetch("http://innocent.example/a.gif", tmp_path, FetchLimits())


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "2130706433", "0x7f.1"])
def test_this_machine_is_refused_however_it_is_written(tmp_path: Path, host: str) -> None:
    with pytest.raises(HotshotError, match=r"`allow_private_urls`|cannot be found"):
        _fetch(f"http://{host}/a.gif", tmp_path, FetchLimits())


def test_the_checked_address_is_the_one_connected_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that resolves otherwise the second time does not get its way."""
    connected = []

    def connect(address: tuple[str, int], **_: Any) -> Any:
        connected.append(address)
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr(socket, "getaddrinfo", _resolving("8.8.8.8"))
    monkeypatch.setattr(socket, "create_connection", connect)
    with pytest.raises(HotshotError, match="Network is unreachable"):
        _fetch("http://example.org:8080/a.gif", tmp_path, FetchLimits())
    assert connected == [("8.8.8.8", 8080)]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("file:///etc/passwd", "only http:// and https://"),
        ("ftp://example.org/a.gif", "only http:// and https://"),
        ("http://", "names no host"),
        ("http://[::1/a.gif", "not a valid URL"),
        ("http://example.org:99999999/a.gif", "not a valid URL"),
        ("http://user:secret@example.org/a.gif", "user name or password"),
    ],
)
def test_malformed_urls(tmp_path: Path, url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        _fetch(url, tmp_path, FetchLimits())
    assert "secret" not in str(caught.value)


def test_paths_are_no_urls() -> None:
    assert is_url("https://example.org") and is_url("FILE:///x")
    assert not any(map(is_url, ["walk.gif", "/tmp/a:b.gif", "C:\\a.gif", "http:/a", "./http://a"]))
