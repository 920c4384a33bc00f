"""A Hub on this machine that takes models and gives them again, as the Hub's client asks it to."""

import base64
import contextlib
import hashlib
import json
import re
import threading
import time
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants, hf_api
from huggingface_hub.utils import _http

TOKEN = "hf_loopbackloopbackloopbackloopback"
_LARGE = (".safetensors", ".gif", ".png")


@dataclass
class Repository:
    """What one repository holds.

    Attributes:
        private: seen by its owner alone.
        files: content by path, after the last commit.
        commits: paths that each commit added, in its order.
    """

    private: bool = False
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[list[str]] = field(default_factory=list)

    @property
    def sha(self) -> str:
        return hashlib.sha1(repr((len(self.commits), sorted(self.files))).encode()).hexdigest()


@dataclass
class Hub:
    """The server's state.

    Attributes:
        repositories: models by id.
        writers: users and organisations that the login may write to.
        readers: those that it belongs to without that right.
        stored: large files by their SHA-256.
        uploads: SHA-256 of each file that was put in the storage.
        broken_after: so many uploads are taken; then the connection is closed. None: all.
        stalled: set when an upload came that is never answered; see `stall`.
        stall: whether uploads are never answered.
        status: answer every request with it; None to serve.
    """

    repositories: dict[str, Repository] = field(default_factory=dict)
    writers: tuple[str, ...] = ("org", "me")
    readers: tuple[str, ...] = ("others",)
    stored: dict[str, bytes] = field(default_factory=dict)
    uploads: list[str] = field(default_factory=list)
    broken_after: int | None = None
    stall: bool = False
    stalled: threading.Event = field(default_factory=threading.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    status: int | None = None
    url: str = ""

    def environment(self, cache: Any) -> dict[str, str]:
        """Variables with which the client talks to this server alone, logged in."""
        return {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(cache),
            "HF_HUB_CACHE": f"{cache}/hub",
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self._read()
        path = unquote(urlsplit(self.path).path)
        if self.hub.status is not None:
            return self._send(self.hub.status)
        if path.startswith("/storage/"):
            return self._store(path.removeprefix("/storage/"))
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if path == "/api/whoami-v2":
            return self._json({"name": "me", "orgs": []}) if known else self._send(401)
        if path == "/api/repos/create":
            return self._create(json.loads(self.body), known)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/.*)?", path):
            return self._model(found[1], found[2] or "", known)
        if found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            return self._batch(json.loads(self.body))
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._file(found[1], found[2])
        return self._send(404)

    def _read(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _create(self, asked: dict[str, Any], known: bool) -> None:
        owner = asked.get("organization") or "me"
        name = f"{owner}/{asked['name']}"
        if not known:
            return self._send(401)
        if owner not in self.hub.writers:
            return self._send(403)
        if name in self.hub.repositories:
            return self._json({"url": f"{self.hub.url}/{name}"}, 409)
        private = asked.get("private") or asked.get("visibility") == "private"
        self.hub.repositories[name] = Repository(private=bool(private))
        return self._json({"url": f"{self.hub.url}/{name}"})

    def _model(self, name: str, rest: str, known: bool) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        writes = known and name.split("/")[0] in self.hub.writers
        if rest == "" or rest.startswith("/revision/"):
            card = repository.files.get("README.md", b"").decode().split("---")
            licence = re.search(r"^license: (\S+)", card[1], re.M) if len(card) > 1 else None
            return self._json(
                {
                    "id": name,
                    "sha": repository.sha,
                    "private": repository.private,
                    "siblings": [
                        {"rfilename": each, "size": len(content)}
                        for each, content in repository.files.items()
                    ],
                    "cardData": {"license": licence[1]} if licence else None,
                }
            )
        if rest.startswith("/tree/"):
            return self._json(
                [
                    {"type": "file", "path": each, "size": len(content), "oid": _sha1(content)}
                    for each, content in repository.files.items()
                ]
            )
        if not writes:
            return self._send(403)
        if rest == "/preupload/main":
            asked = json.loads(self.body)["files"]
            return self._json(
                {
                    "files": [
                        {
                            "path": each["path"],
                            "uploadMode": "lfs" if each["path"].endswith(_LARGE) else "regular",
                            "shouldIgnore": False,
                        }
                        for each in asked
                    ]
                }
            )
        if rest == "/commit/main":
            return self._commit(name, repository)
        return self._send(404)

    def _batch(self, asked: dict[str, Any]) -> None:
        objects = []
        for each in asked["objects"]:
            there = each["oid"] in self.hub.stored
            action = {"upload": {"href": f"{self.hub.url}/storage/{each['oid']}", "header": {}}}
            objects.append({**each, **({} if there else {"actions": action})})
        self._json({"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        if self.hub.stall:
            self.hub.stalled.set()
            self.hub.stopped.wait()
            return
        taken = self.hub.broken_after is None or len(self.hub.uploads) < self.hub.broken_after
        if not taken:
            self.close_connection = True
            return
        assert hashlib.sha256(self.body).hexdigest() == oid
        self.hub.uploads.append(oid)
        self.hub.stored[oid] = self.body
        self._send(200)

    def _commit(self, name: str, repository: Repository) -> None:
        files, added = dict(repository.files), []
        for line in self.body.decode().splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.stored[value["oid"]]
            elif operation["key"] == "deletedFile":
                del files[value["path"]]
            added += [value["path"]] if operation["key"] in ("file", "lfsFile") else []
        repository.files = files
        repository.commits.append(added)
        url = f"{self.hub.url}/{name}/commit/{repository.sha}"
        self._json({"success": True, "commitOid": repository.sha, "commitUrl": url})

    def _file(self, name: str, path: str) -> None:
        repository = self.hub.repositories.get(name)
        if repository is None:
            return self._send(404, {"X-Error-Code": "RepoNotFound"})
        if path not in repository.files:
            return self._send(404, {"X-Error-Code": "EntryNotFound"})
        content = repository.files[path]
        headers = {"ETag": f'"{_sha1(content)}"', "X-Repo-Commit": repository.sha}
        return self._send(200, headers, content)

    def _json(self, value: Any, status: int = 200) -> None:
        self._send(status, {"Content-Type": "application/json"}, json.dumps(value).encode())

    def _send(self, status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in (headers or {}).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is tested."""


@contextlib.contextmanager
def serving() -> Iterator[Hub]:
    """Runs the Hub in a thread."""
    hub = Hub()
    with _Server(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub})) as server:
        hub.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield hub
        finally:
            hub.stopped.set()
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def connected(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """Runs the Hub, and lets the client in this process talk to it alone, logged in."""
    with serving() as hub:
        for name, value in hub.environment(home).items():
            monkeypatch.setenv(name, value)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "HF_HUB_OFFLINE": False,
            "HF_HUB_DISABLE_XET": True,
            "ENDPOINT": hub.url,
            "HF_TOKEN_PATH": str(home / "no-token"),
            "HF_HUB_CACHE": str(home / "hub"),
            "HUGGINGFACE_CO_URL_TEMPLATE": template,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setattr(hf_api.api, "endpoint", hub.url)
        # The client waits longer and longer between tries.
        unhurried = types.SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
        monkeypatch.setattr(_http, "time", unhurried)
        yield hub


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
