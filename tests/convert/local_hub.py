"""A Hub on this machine: enough of the real one's HTTP interface for the Hub client to download."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class LocalHub:
    """What the server answers with.

    Attributes:
        files: content by path, of the only repository, ``org/model``.
        refusal: status and error code to answer every request with, None to serve.
        downloaded: paths whose content was fetched.
    """

    files: dict[str, bytes]
    refusal: tuple[int, str] | None = None
    downloaded: list[str] = field(default_factory=list)
    url: str = ""


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextmanager
def serve(hub: LocalHub) -> Iterator[LocalHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._answer(send_body=False)

        def do_GET(self) -> None:
            self._answer(send_body=True)

        def log_message(self, format: str, *args: object) -> None:
            pass

        def _answer(self, send_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            if hub.refusal is not None:
                status, code = hub.refusal
                return self._send(status, b"", send_body, {"X-Error-Code": code})
            if not path.startswith(("/api/models/org/model", "/org/model/")):
                return self._send(404, b"", send_body, {"X-Error-Code": "RepoNotFound"})
            if path.startswith("/api/models/org/model/tree/"):
                return self._send_json(self._tree(), send_body)
            if path.startswith("/api/models/org/model"):
                revision = path.removeprefix("/api/models/org/model").removeprefix("/revision/")
                if revision not in ("", "main", "v2", COMMIT):
                    return self._send(404, b"", send_body, {"X-Error-Code": "RevisionNotFound"})
                siblings = [
                    {"rfilename": name, "size": len(content)} for name, content in hub.files.items()
                ]
                return self._send_json(
                    {"id": "org/model", "sha": COMMIT, "siblings": siblings}, send_body
                )
            name = path.removeprefix("/org/model/resolve/").partition("/")[2]
            if name not in hub.files:
                return self._send(404, b"", send_body, {"X-Error-Code": "EntryNotFound"})
            if send_body:
                hub.downloaded.append(name)
            headers = {"ETag": f'"{_digest(hub.files[name])}"', "X-Repo-Commit": COMMIT}
            return self._send(200, hub.files[name], send_body, headers)

        def _tree(self) -> list[dict]:
            return [
                {"type": "file", "path": name, "size": len(content), "oid": _digest(content)}
                for name, content in hub.files.items()
            ]

        def _send_json(self, value: object, send_body: bool) -> None:
            self._send(
                200, json.dumps(value).encode(), send_body, {"Content-Type": "application/json"}
            )

        def _send(self, status: int, body: bytes, send_body: bool, headers: dict) -> None:
            self.send_response(status)
            for key, value in headers.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if send_body:
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_cache(cache: Path, files: dict[str, bytes], revision: str = "main") -> Path:
    """Lays files out as the Hub client caches ``org/model``; returns the snapshot's folder."""
    root = cache / "models--org--model"
    snapshot = root / "snapshots" / COMMIT
    (root / "blobs").mkdir(parents=True)
    (root / "refs").mkdir()
    (root / "refs" / revision).write_text(COMMIT)
    for name, content in files.items():
        blob = root / "blobs" / _digest(content)
        blob.write_bytes(content)
        link = snapshot / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(blob)
    return snapshot


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
