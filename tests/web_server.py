"""A web server on this machine, well-behaved and not."""

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit


class WebServer(http.server.ThreadingHTTPServer):
    """Serves files and redirects; some paths never end.

    Attributes:
        files: content by path.
        redirects: where a path sends on to.
        stopped: set once the server is to end.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.redirects: dict[str, str] = {}
        self.stopped = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is tested."""


class _Handler(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        if path in self.server.redirects:
            self.send_response(302)
            self.send_header("Location", self.server.redirects[path])
            self.end_headers()
        elif path in self.server.files:
            self._start(len(self.server.files[path]))
            self.wfile.write(self.server.files[path])
        elif path == "/endless":
            self._start()
            while not self.server.stopped.is_set():
                self.wfile.write(bytes(1 << 16))
        elif path == "/drip":
            self._start()
            self._drip(b"x")
        elif path == "/drip-header":
            self.send_response(200)
            self.flush_headers()
            self._drip(b"X-Wait: yes\r\n")
        elif path == "/silent":
            self.server.stopped.wait()
        elif path == "/cut":
            self._start(1000)
            self.wfile.write(b"abc")
        else:
            self.send_error(404)

    def _start(self, length: int | None = None) -> None:
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def _drip(self, piece: bytes) -> None:
        while not self.server.stopped.is_set():
            self.wfile.write(piece)
            time.sleep(0.05)


@contextlib.contextmanager
def serving() -> Iterator[WebServer]:
    """Runs a server in a thread."""
    with WebServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.stopped.set()
            server.shutdown()
            thread.join()
