"""Who may ask: this machine's names, pages of this origin, whoever has the key; and how much."""

import logging
from collections.abc import Iterator
from typing import Any

import anyio
import pytest
from starlette.testclient import TestClient

from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.api.guard import Access
from tests.server.fakes import Serving

KEY = "a very secret key of the server"


def asking(serving: Serving, **access: Any) -> TestClient:
    app = create_app(serving.service, Access(**access))
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


def code(answer: Any) -> str | None:
    return answer.json()["error"]["code"] if answer.status_code >= 400 else None


@pytest.mark.parametrize(
    ("host", "served"),
    [
        ("localhost", True),
        ("localhost:8000", True),
        ("LOCALHOST", True),
        ("127.0.0.1:8000", True),
        ("127.3.2.1", True),
        ("[::1]:8000", True),
        ("example.com", False),
        ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
        ("example.com@localhost", False),
        ("[::1", False),
        ("", False),
    ],
)
def test_without_a_key_only_names_of_this_machine_are_served(
    client: TestClient, host: str, served: bool
) -> None:
    answer = client.get("/v1/models", headers={"Host": host})
    assert code(answer) == (None if served else "host_not_allowed")


@pytest.mark.parametrize(
    ("headers", "served"),
    [
        ({"Origin": "http://localhost"}, True),
        ({"Origin": "http://example.com"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost:81"}, False),
        ({"Origin": "http://["}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}, False),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
    ],
)
def test_pages_of_other_origins_are_refused(
    client: TestClient, headers: dict[str, str], served: bool
) -> None:
    body = {"prompt": "a", "size": "16x16"}
    answer = client.post("/v1/videos", json=body, headers=headers)
    assert code(answer) == (None if served else "origin_not_allowed")
    assert "access-control-allow-origin" not in answer.headers


def test_a_link_from_elsewhere_may_be_followed(client: TestClient) -> None:
    followed = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Dest": "document"}
    assert client.get("/health", headers=followed).status_code == 200
    for otherwise in ({"Sec-Fetch-Dest": "iframe"}, {"Origin": "http://example.com"}):
        assert client.get("/health", headers=followed | otherwise).status_code == 403


def test_an_origin_that_is_allowed_may_ask(serving: Serving) -> None:
    origin = "https://example.com"
    with asking(serving, origins=(origin,)) as client:
        answer = client.get("/v1/models", headers={"Origin": origin})
        assert answer.headers["access-control-allow-origin"] == origin
        asked = {"Origin": origin, "Access-Control-Request-Method": "DELETE"}
        assert client.options("/v1/videos", headers=asked).status_code == 200
        assert code(client.get("/v1/models", headers={"Origin": "https://other.com"})) is not None


@pytest.mark.parametrize(
    "given",
    [None, "Bearer", "Bearer x", f"Basic {KEY}", f"Bearer {KEY}x", "Bearer \xe9", KEY, "Bearer "],
)
def test_all_but_health_needs_the_key(serving: Serving, given: str | None) -> None:
    with asking(serving, api_key=KEY) as client:
        headers = {} if given is None else {"Authorization": given.encode("latin-1")}
        for path in ("/v1/models", "/v1/videos", "/metrics", "/openapi.json", "/", "/nothing"):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401 and code(answer) == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/health", headers=headers).status_code == 200


def test_the_key_opens_from_anywhere(serving: Serving) -> None:
    with asking(serving, api_key=KEY) as client:
        for scheme in ("Bearer", "bearer"):
            headers = {"Authorization": f"{scheme} {KEY}", "Host": "example.com"}
            assert client.get("/v1/models", headers=headers).status_code == 200


def test_neither_keys_nor_prompts_are_logged(
    serving: Serving, caplog: pytest.LogCaptureFixture
) -> None:
    prompt = "words of the prompt"

    def broken(*_: object) -> None:
        raise RuntimeError(prompt)

    caplog.set_level(logging.DEBUG)
    with asking(serving, api_key=KEY) as client:
        headers = {"Authorization": f"Bearer {KEY}"}
        body = {"prompt": prompt, "size": "16x16"}
        for _ in range(2):
            client.post("/v1/videos", json=body, headers=headers)
            serving.service.submit = broken  # type: ignore[method-assign, assignment]
    assert "RuntimeError" in caplog.text
    assert KEY not in caplog.text and "words" not in caplog.text
    assert KEY not in repr(Access(KEY))


@pytest.mark.parametrize(
    ("closes", "status", "told"), [(False, 408, b"too long"), (True, 503, b"shutting down")]
)
def test_a_request_that_does_not_arrive_is_not_waited_for(
    serving: Serving, closes: bool, status: int, told: bytes
) -> None:
    """Nor when the server ends, whose log would tell of each that it breaks off."""
    app = create_app(serving.service, Access(seconds_of_a_body=300 if closes else 0.05))
    sent: list[Any] = []

    async def receive() -> Any:
        serving.service.closing = closes
        await anyio.sleep(300)

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/videos",
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    anyio.run(app, scope, receive, send)
    assert sent[0]["status"] == status and told in sent[1]["body"]


def test_a_request_ends_where_the_limit_is(serving: Serving) -> None:
    read: list[int] = []

    def endless() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="video"; filename="a"\r\n\r\n'
        while True:
            read.append(1)
            assert len(read) < 50
            yield b"x" * 1000

    with asking(serving, most_body_bytes=10_000) as client:
        large = {"prompt": "a" * 20_000}
        assert client.post("/v1/videos", json=large).status_code == 413
        headers = {"Content-Type": "multipart/form-data; boundary=b"}
        # The client of the tests reads a body to its end, so that this one has one.
        parts = [part for part, _ in zip(endless(), range(40), strict=False)]
        answer = client.post("/v1/videos", content=iter(parts), headers=headers)
        assert answer.status_code == 413
        assert "0.00953674 MiB" in answer.json()["error"]["message"]
        for wrong in ("-1", "x", "9" * 30):
            headers = {"Content-Type": "application/json", "Content-Length": wrong}
            assert client.post("/v1/videos", headers=headers).status_code == 413
