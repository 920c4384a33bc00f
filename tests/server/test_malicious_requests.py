"""Requests that a person would not send, and a program that looks for a hole would."""

import pytest
from starlette.testclient import TestClient

from tests.server.fakes import error_of

PROMPT = b'--b\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na\r\n'
END = b"--b--\r\n"


def part(name: str, content: bytes = b"1", more: str = "") -> bytes:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


MANY_FILES = b"".join(part(f"frame_at_{n}", more='; filename="a"') for n in range(65))


@pytest.mark.parametrize(
    ("content", "status"),
    [
        pytest.param(PROMPT + END, 200, id="as it should be"),
        pytest.param(
            PROMPT + b"".join(part(f"x{n}") for n in range(201)) + END, 400, id="very many fields"
        ),
        pytest.param(PROMPT + MANY_FILES + END, 400, id="very many files"),
        pytest.param(part("prompt", b"a" * (5 << 20)) + END, 400, id="a long field"),
        pytest.param(part("seed", b"[" * 100_000) + PROMPT + END, 422, id="a deep field"),
        pytest.param(part("seed", b"9" * 5_000) + PROMPT + END, 422, id="a long number"),
        pytest.param(PROMPT + PROMPT + END, 400, id="a field twice"),
        pytest.param(
            PROMPT + part("mask", more="; filename*=utf-8''..%2F..%2Fa") * 2 + END,
            400,
            id="a file twice",
        ),
        pytest.param(PROMPT + part("../../etc/x", more='; filename="a"') + END, 400, id="a path"),
        pytest.param(PROMPT + part("x\\x00y") + END, 422, id="a zero byte"),
        pytest.param(PROMPT + part("a" * 100_000) + END, 400, id="a long name"),
        pytest.param(PROMPT, 422, id="no end"),
        pytest.param(b"--b\r\n\r\na\r\n" + END, 400, id="no name"),
        pytest.param(
            b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\na\r\n" + END, 400, id="many headers"
        ),
    ],
)
def test_forms(client: TestClient, content: bytes, status: int) -> None:
    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    answer = client.post("/v1/videos", content=content, headers=headers)
    if status == 200:
        assert answer.status_code == 200, answer.text
    else:
        error_of(answer, status)


@pytest.mark.parametrize(
    ("media_type", "status"),
    [
        ("multipart/form-data; boundary=", 400),
        ("multipart/form-data; boundary=" + "b" * 10_000, 400),
        ('multipart/form-data; boundary="b', 400),
        ("multipart/form-data; boundary=a; boundary=c", 400),
        ("multipart/form-data; boundary=\xe9", 400),
        ("multipart/mixed; boundary=b", 415),
        ("application/json; charset=utf-7", 400),
        ("application/json, text/plain", 415),
        ("", 415),
    ],
)
def test_content_types(client: TestClient, media_type: str, status: int) -> None:
    headers = {b"Content-Type": media_type.encode("latin-1")}
    error_of(client.post("/v1/videos", content=PROMPT + END, headers=headers), status)


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("image/gif;q=nan", 406),
        ("image/gif;q=-inf", 406),
        ("image/gif;q=1e999", 404),
        ("*/*;q=", 406),
        (";" * 10_000, 406),
        ("," * 10_000, 406),
        ("image/gif;" * 5_000, 404),
        ("\xe9", 406),
    ],
)
def test_what_is_accepted(client: TestClient, accept: str, status: int) -> None:
    headers = {b"Accept": accept.encode("latin-1")}
    error_of(client.get("/v1/videos/video_x/content", headers=headers), status)
