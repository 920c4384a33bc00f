"""What of Gradio can be reached, and by whom."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from hotshot_jax.media.write import write_video
from hotshot_jax.server.api import session
from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.api.guard import Access
from hotshot_jax.server.page.app import add_page, page_app
from tests.server.fakes import Serving

KEY = "a very secret key of the server"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    with Serving(tmp_path_factory.mktemp("page")) as serving:
        yield serving


def asking(app: Any) -> TestClient:
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def client(served: Serving) -> TestClient:
    access = Access(most_body_bytes=1 << 20)
    app = create_app(served.service, access)
    add_page(app, served.service, access)
    return asking(app)


@pytest.fixture(scope="module")
def locked(served: Serving) -> TestClient:
    access = Access(KEY, login_path="/login")
    app = create_app(served.service, access)
    add_page(app, served.service, access)
    return asking(app)


@pytest.fixture
def gif(tmp_path: Path) -> bytes:
    write_video(tmp_path / "a.gif", np.zeros((2, 8, 8, 3), np.uint8), 1000, {})
    return (tmp_path / "a.gif").read_bytes()


def code(answer: Any) -> str:
    return answer.json()["error"]["code"]


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/info",
        "/gradio_api/openapi.json",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file/etc/passwd",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/file=http%3A%2F%2F127.0.0.1%3A1%2F",
        "/gradio_api/proxy=https://a.hf.space/",
        "/gradio_api/runs",
        "/gradio_api/deep_link",
        "/gradio_api/run-history/buckets",
        "/gradio_api/stream/a/b/1/playlist.m3u8",
        "/static/../../routes.py",
        "/assets/%2e%2e/%2e%2e/routes.py",
        "/monitoring",
        "/token",
        "/nothing",
    ],
)
def test_the_rest_of_gradio_is_not_there(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404 and code(answer) == "not_found"


def test_a_file_is_shown_only_if_it_was_uploaded(client: TestClient, gif: bytes) -> None:
    sent = {"files": ("../../evil.gif", gif)}
    (path,) = client.post("/gradio_api/upload", files=sent).json()
    assert "evil" not in path
    shown = client.get(f"/gradio_api/file={path}")
    assert shown.content == gif and shown.headers["content-type"] == "image/gif"
    for other in (f"{path}/../../../../../../etc/passwd", f"{path}%00", path.removeprefix("/")):
        assert client.get(f"/gradio_api/file={other}").status_code == 404
    assert code(client.post("/gradio_api/upload", files={"files": b"<html>"})) == "invalid_value"
    big = client.post("/gradio_api/upload", files={"files": gif + bytes(1 << 20)})
    assert code(big) == "content_too_large"


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "http://127.0.0.1:1/a.png", "http%3A//a", "", 7, None, ["/etc/passwd"]]
)
def test_a_call_names_nothing_that_was_not_uploaded(client: TestClient, path: Any) -> None:
    data = [{"deeper": {"path": path, "meta": {"_type": "gradio.FileData"}}}]
    call = {"data": data, "fn_index": 0, "session_hash": "a"}
    answer = client.post("/gradio_api/queue/join", json=call)
    if path is None:
        assert "uploaded" not in answer.text
    else:
        assert answer.status_code == 400 and "were uploaded here" in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b'{"data": [], "data": []}', bytes(2 << 20)])
def test_what_is_no_call_is_told(client: TestClient, body: bytes) -> None:
    assert client.post("/gradio_api/queue/join", content=body).status_code in (400, 413)


@pytest.mark.parametrize("path", ["run/predict", "api/predict", "call/_make", "component_server"])
def test_programs_have_the_api_and_not_the_page(client: TestClient, path: str) -> None:
    answer = client.post(f"/gradio_api/{path}", json={"data": []})
    assert answer.status_code == 404 and code(answer) == "not_found"
    assert client.post("/v1/models").status_code == 405


def test_the_page_is_there_and_names_no_other_host(client: TestClient) -> None:
    page = client.get("/")
    assert page.status_code == 200 and "hotshot-jax" in page.text
    theme = client.get("/theme.css")
    assert set(re.findall("https?://[^/']+", theme.text)) <= {"http://www.w3.org"}
    assert "system-ui" in theme.text
    asked = client.get("/", headers={"Host": "example.com"})
    assert code(asked) == "host_not_allowed"


def test_nobody_else_is_asked_when_it_is_built(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda *names, **_: asked.append(names))
    assert asking(page_app(served.service, Access())).get("/").status_code == 200
    assert not asked


def test_the_page_alone_has_no_list_of_all_clips(served: Serving) -> None:
    alone = asking(page_app(served.service, Access(any_host=True)))
    id = served.submit()
    served.ended(id)
    headers = {"Host": "space.example.com", "Sec-Fetch-Site": "cross-site"}
    framed = headers | {"Sec-Fetch-Dest": "iframe"}
    assert alone.get("/", headers=framed).status_code == 200
    assert alone.get(f"/clips/{id}.gif", headers={"Host": "a"}).content[:4] == b"GIF8"
    assert alone.get("/v1/videos", headers={"Host": "a"}).status_code == 404
    assert alone.get("/clips/video_0.gif").status_code == 404


def test_with_a_key_all_of_it_needs_a_session(locked: TestClient, gif: bytes) -> None:
    for path in (
        "/",
        "/config",
        "/theme.css",
        "/gradio_api/queue/data",
        "/assets/a",
        "/clips/a.gif",
    ):
        assert code(locked.get(path)) == "invalid_api_key"
    for path in ("queue/join", "upload", "cancel"):
        assert code(locked.post(f"/gradio_api/{path}", json={})) == "invalid_api_key"
    sent = locked.get("/", headers={"Accept": "text/html"}, follow_redirects=False)
    assert (sent.status_code, sent.headers["location"]) == (303, "/login")
    assert "Key of this server" in locked.get("/login").text
    wrong = locked.post("/login", data={"key": f"{KEY}x"})
    assert wrong.status_code == 401 and "not the key" in wrong.text and not locked.cookies
    assert locked.post("/login", content=bytes(5000)).status_code == 413
    try:
        right = locked.post("/login", data={"key": KEY}, follow_redirects=False)
        assert right.status_code == 303
        cookie = right.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie
        assert locked.get("/").status_code == 200
        other = locked.get("/", headers={"Origin": "http://example.com"})
        assert code(other) == "origin_not_allowed"
    finally:
        locked.cookies.clear()


def test_a_session_is_of_its_key_and_ends(
    locked: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opens(value: str) -> bool:
        given = {"Cookie": f"{session.COOKIE}={value}"}
        return locked.get("/v1/models", headers=given).status_code == 200

    good = session.new_session(KEY)
    until, _, signature = good.partition(".")
    assert opens(good)
    for wrong in (
        session.new_session("another key"), f"{int(until) + 1}.{signature}", f"{until}.", until, "",
        f"{until}.{signature}x", "-1.a",
    ):  # fmt: skip
        assert not opens(wrong)
    now = session.time.time()
    monkeypatch.setattr(session.time, "time", lambda: now + session.SECONDS + 1)
    assert not opens(good)


def test_what_gradio_keeps_of_calls_has_an_end(client: TestClient) -> None:
    queue = client.app.router.routes[-1].app._app.get_blocks()._queue  # type: ignore[attr-defined]
    most = queue.ANALYTICS_MAX_EVENTS
    # A record is less than a kilobyte.
    assert most <= 10_000
    queue.ANALYTICS_MAX_EVENTS = 2
    try:
        for number in range(4):
            call = {"data": [None], "fn_index": 0, "session_hash": f"a{number}"}
            assert client.post("/gradio_api/queue/join", json=call).status_code == 200
        assert len(queue.event_analytics) == 2
    finally:
        queue.ANALYTICS_MAX_EVENTS = most
