"""The endpoints: what they take and give, and that every error has one shape."""

import base64
import io
import json
from typing import Any

import anyio
import openai
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.job import Status
from hotshot_jax.server.results import CLIP_FORMS
from tests.server.fakes import Serving, error_of, until

SMALL = {"prompt": "a fox", "size": "16x16", "num_frames": 2, "num_inference_steps": 2}
MAGIC = {"gif": b"GIF89a", "mp4": b"\0\0\0", "webp": b"RIFF"}


def made(client: TestClient, **values: Any) -> str:
    answer = client.post("/v1/videos", json=SMALL | values)
    assert answer.status_code == 200, answer.text
    id: str = answer.json()["id"]
    until(lambda: client.get(f"/v1/videos/{id}").json()["status"] == "completed")
    return id


def test_a_job_is_made_looked_at_and_fetched(client: TestClient) -> None:
    job = client.post("/v1/videos", json=SMALL | {"seed": 5}).json()
    assert job["object"] == "video" and job["status"] in ("queued", "in_progress")
    assert (job["size"], job["seconds"], job["seed"]) == ("16x16", "1", 5)
    id = made(client, seed=6)
    job = client.get(f"/v1/videos/{id}").json()
    assert (job["progress"], job["seed"]) == (100, 6)
    assert job["expires_at"] > job["completed_at"] >= job["created_at"]
    for form, media_type in CLIP_FORMS.items():
        for answer in (
            client.get(f"/v1/videos/{id}/content", params={"format": form}),
            client.get(f"/v1/videos/{id}/content.{form}"),
            client.get(f"/v1/videos/{id}/content", headers={"Accept": media_type}),
        ):
            assert answer.headers["content-type"] == media_type
            assert answer.content.startswith(MAGIC[form])
    assert client.get(f"/v1/videos/{id}/content").content.startswith(b"GIF")


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "gif"),
        ("video/*, image/*;q=0.5", "mp4"),
        ("image/webp,image/apng,image/*;q=0.8", "webp"),
        ("image/gif;q=0, image/*;q=0.3", "webp"),
        ("application/binary", "mp4"),
        ("text/html", None),
        ("image/gif;q=nonsense", None),
    ],
)
def test_accept_chooses_the_form(client: TestClient, accept: str, form: str | None) -> None:
    id = made(client)
    answer = client.get(f"/v1/videos/{id}/content", headers={"Accept": accept})
    if form is None:
        assert "image/gif" in error_of(answer, 406)
    else:
        assert answer.headers["content-type"] == CLIP_FORMS[form]


def test_seeds_are_drawn_and_told(client: TestClient) -> None:
    seeds = {client.post("/v1/videos", json=SMALL).json()["seed"] for _ in range(2)}
    assert len(seeds) == 2


@pytest.mark.parametrize(
    ("given", "frames", "seconds"),
    [
        ({}, 8, "1"),
        ({"seconds": 2}, 16, "2"),
        ({"seconds": "4"}, 32, "4"),
        ({"seconds": 2, "fps": 4}, 8, "2"),
        ({"num_frames": 4, "fps": 8}, 4, "0.5"),
        ({"num_frames": 4, "seconds": 1.5}, 4, "1.5"),
        ({"num_frames": 40}, 40, "5"),
        ({"num_frames": 4, "ping_pong": True}, 6, "1.5"),
    ],
)
def test_length_is_said_in_frames_and_seconds(
    client: TestClient, given: dict[str, Any], frames: int, seconds: str
) -> None:
    body = {name: value for name, value in SMALL.items() if name != "num_frames"}
    job = client.post("/v1/videos", json=body | given).json()
    assert (job["num_frames"], job["seconds"]) == (frames, seconds)


def test_a_form_says_the_same_as_json(client: TestClient, serving: Serving) -> None:
    values = {
        **SMALL,
        "prompt": "12",
        "seed": 3,
        "loop": True,
        "guidance_scale": {"0": 5.0, "1": 7.5},
        "negative_prompt_at": {"1": "x"},
        "cache_interval": [0, 1],
    }
    form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in values.items()}
    answers = [
        client.post("/v1/videos", json=values),
        client.post("/v1/videos", files=form_of(form)),
    ]
    first, second = (serving.service.job(answer.json()["id"]) for answer in answers)
    assert first.values == second.values


def form_of(fields: dict[str, str]) -> dict[str, Any]:
    """A form without files."""
    return {name: (None, value) for name, value in fields.items()}


def test_jobs_are_listed_by_pages(client: TestClient) -> None:
    ids = [client.post("/v1/videos", json=SMALL).json()["id"] for _ in range(3)]
    page = client.get("/v1/videos", params={"limit": 2}).json()
    assert [job["id"] for job in page["data"]] == ids[:0:-1]
    assert (page["first_id"], page["last_id"], page["has_more"]) == (ids[2], ids[1], True)
    rest = client.get("/v1/videos", params={"limit": 2, "after": page["last_id"]}).json()
    assert [job["id"] for job in rest["data"]] == ids[:1] and not rest["has_more"]
    oldest = client.get("/v1/videos", params={"order": "asc", "limit": 1}).json()
    assert oldest["first_id"] == ids[0]
    error_of(client.get("/v1/videos", params={"after": "video_x"}), 404)
    assert "limit" in error_of(client.get("/v1/videos", params={"limit": 0}), 422)


def test_deleting_cancels_what_is_made_and_removes_what_was(
    client: TestClient, serving: Serving
) -> None:
    id = made(client)
    assert client.delete(f"/v1/videos/{id}").json() == {
        "id": id,
        "object": "video.deleted",
        "deleted": True,
    }
    error_of(client.get(f"/v1/videos/{id}"), 404)
    error_of(client.delete(f"/v1/videos/{id}"), 404)
    serving.making.gate.clear()
    id = client.post("/v1/videos", json=SMALL).json()["id"]
    assert "nothing to be had yet" in error_of(client.get(f"/v1/videos/{id}/content"), 409)
    client.delete(f"/v1/videos/{id}")
    serving.making.gate.set()
    assert client.get(f"/v1/videos/{id}").json()["status"] == "cancelled"
    assert "cancelled" in error_of(client.get(f"/v1/videos/{id}/content"), 409)


def test_who_waits_gets_the_clip(client: TestClient) -> None:
    answer = client.post("/v1/videos/sync", json=SMALL, headers={"Accept": "video/mp4"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "video/mp4"
    assert client.get(f"/v1/videos/{answer.headers['x-job-id']}").json()["status"] == "completed"


@pytest.mark.parametrize("path", ["/v1/videos/sync", "/v1/images/generations"])
def test_who_hangs_up_does_not_want_it_any_more(serving: Serving, path: str) -> None:
    """The job that is made is cancelled, whether the worker has it or it waits."""
    # It is still being made when whoever asked has gone.
    serving.making.gate.clear()
    body = {"prompt": "a fox", "size": "16x16", "num_inference_steps": 2}
    messages = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]

    async def receive() -> Any:
        if messages:
            return messages.pop()
        if not serving.making.batches:
            await anyio.sleep_forever()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        pass

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"host", b"localhost"), (b"content-type", b"application/json")],
    }
    anyio.run(create_app(serving.service), scope, receive, send)
    serving.making.gate.set()
    ended = 'hotshot_jobs_total{status="cancelled"} 1.0'
    until(lambda: ended in serving.service.metrics.text().decode())
    assert not serving.store.page("image", 10)


def test_who_waits_for_what_fails_is_told_why(client: TestClient, serving: Serving) -> None:
    def fail(clips: Any) -> None:
        raise MemoryError

    serving.making.at_step = fail
    assert "out of memory" in error_of(client.post("/v1/videos/sync", json=SMALL), 409)
    picture = {"prompt": "a fox", "size": "16x16", "num_inference_steps": 2}
    assert "out of memory" in error_of(client.post("/v1/images/generations", json=picture), 409)
    assert not list(serving.store.page("image", 10))


def test_events_follow_a_job_to_its_end(client: TestClient, serving: Serving) -> None:
    serving.making.gate.clear()
    id = client.post("/v1/videos", json=SMALL).json()["id"]
    seen: list[tuple[str, dict[str, Any]]] = []
    serving.making.gate.set()
    with client.stream("GET", f"/v1/videos/{id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in stream.iter_lines() if line]
    for event, data in zip(lines[::2], lines[1::2], strict=True):
        seen.append((event.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    assert [name for name, _ in seen[:-1]] == ["progress"] * (len(seen) - 1)
    assert seen[-1][0] == "completed" and seen[-1][1]["id"] == id
    error_of(client.get(f"/v1/videos/{id[:-1]}x/events"), 404)


def test_the_official_client_makes_pictures(client: TestClient, serving: Serving) -> None:
    with openai.OpenAI(
        api_key="none", base_url="http://localhost/v1", http_client=client, max_retries=0
    ) as official:
        answer = official.images.generate(
            model="fake",
            prompt="a fox",
            n=2,
            size="16x16",  # type: ignore[call-overload]
            extra_body={"seed": 2**64 - 1, "num_inference_steps": 2},
        )
        assert len(answer.data) == 2
        for each in answer.data:
            picture = Image.open(io.BytesIO(base64.b64decode(each.b64_json)))
            assert (picture.format, picture.size) == ("PNG", (16, 16))
        assert answer.data[1].seed == 0
        with pytest.raises(openai.NotFoundError, match="not served here"):
            official.images.generate(model="dall-e-3", prompt="a fox")
        assert [model.id for model in official.models.list()] == ["fake"]
    # Pictures are not kept.
    until(lambda: not serving.store.page("image", 10))


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
def test_the_official_client_makes_clips(client: TestClient) -> None:
    with openai.OpenAI(
        api_key="none", base_url="http://localhost/v1", http_client=client, max_retries=0
    ) as official:
        videos: Any = official.videos
        options = {"num_inference_steps": 2, "num_frames": 2}
        made = videos.create_and_poll(
            prompt="a fox", model="fake", size="16x16", seconds="1", extra_body=options
        )
        assert made.status == "completed" and made.progress == 100
        assert videos.download_content(made.id).content.startswith(MAGIC["mp4"])
        picture = io.BytesIO()
        Image.new("RGB", (16, 16)).save(picture, "PNG")
        begun = videos.create(
            prompt="a fox",
            size="16x16",
            input_reference=("a.png", picture.getvalue()),
            extra_body=options,
        )
        assert [each.id for each in videos.list(limit=1)] == [begun.id, made.id]
        assert videos.delete(made.id).deleted
        with pytest.raises(openai.NotFoundError):
            videos.retrieve(made.id)


@pytest.mark.parametrize(("form", "expected"), [("jpeg", "JPEG"), ("webp", "WEBP")])
def test_pictures_come_in_other_forms(client: TestClient, form: str, expected: str) -> None:
    body = {"prompt": "a", "size": "16x16", "num_inference_steps": 1, "output_format": form}
    answer = client.post("/v1/images/generations", json=body).json()
    picture = Image.open(io.BytesIO(base64.b64decode(answer["data"][0]["b64_json"])))
    assert picture.format == expected and answer["output_format"] == form


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "prompt is missing"),
        ({"prompt": 3}, 422, "prompt: Input should be a valid string"),
        ({"prompt": "a", "steps": 3}, 422, "steps: Extra inputs are not permitted"),
        ({"prompt": "a", "size": "big"}, 422, "size: "),
        ({"prompt": "a", "size": "16x16", "width": 16}, 422, "one or the other"),
        ({"prompt": "a", "num_frames": 8, "fps": 8, "seconds": 1}, 422, "give two"),
        ({"prompt": "a", "prompt_at": {"x": "b"}}, 422, "prompt_at"),
        ({"prompt": "a", "seed": 2**64}, 422, "seed"),
        ({"prompt": "a", "lora": {"name": "../../etc/passwd"}}, 400, "There is no LoRA"),
        ({"prompt": "a", "lora": {"path": "/etc/passwd"}}, 422, "lora"),
        ({"prompt": "a", "video": "/etc/passwd"}, 422, "video: Extra inputs"),
        ({"prompt": "a", "controlnet": "/etc"}, 400, "There is no ControlNet '/etc' here"),
        ({"prompt": "a", "model": "hotshotco/Hotshot-XL"}, 404, "not served here"),
        ({"prompt": "\ud800"}, 422, "prompt: "),
        ({"prompt": "a", "\u202e": 1}, 422, "\\u202e: Extra"),
        ({"prompt": "a", "x" * 9999: 1}, 422, "Extra"),
        ([], 422, "the request: "),
    ],
)
def test_errors_say_what_is_wrong_in_one_shape(
    client: TestClient, body: Any, status: int, message: str
) -> None:
    content = json.dumps(body)
    headers = {"Content-Type": "application/json"}
    answer = client.post("/v1/videos", content=content, headers=headers)
    assert message in error_of(answer, status)


@pytest.mark.parametrize(
    ("content", "media_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"\xff", "application/json", 400),
        (b"[" * 10_000, "application/json", 400),
        (b'{"prompt": "a", "prompt": "b"}', "application/json", 400),
        (b'{"seed": ' + b"9" * 5000 + b"}", "application/json", 400),
        (b'{"guidance_scale": NaN, "prompt": "a"}', "application/json", 422),
        (json.dumps({str(n): n for n in range(10_000)}).encode(), "application/json", 400),
        (b'{"prompt_at": [' + b"[]," * 9_999 + b"[]]}", "application/json", 400),
        (b"prompt=a", "application/x-www-form-urlencoded", 415),
        (b'{"prompt": "a"}', "text/plain", 415),
        (b"x", "multipart/form-data", 400),
        (b"x", "multipart/form-data; boundary=y", 400),
        (b"", "multipart/form-data; boundary=y", 422),
    ],
)
def test_what_cannot_be_read_is_told(
    client: TestClient, content: bytes, media_type: str, status: int
) -> None:
    headers = {"Content-Type": media_type}
    error_of(client.post("/v1/videos", content=content, headers=headers), status)


def test_other_errors_have_the_shape_too(client: TestClient, serving: Serving) -> None:
    error_of(client.get("/nothing"), 404)
    error_of(client.put("/v1/videos"), 405)
    error_of(client.get("/v1/videos/video_x/content.exe"), 422)
    serving.service.limits = serving.service.limits.__class__(most_waiting=0)
    answer = client.post("/v1/videos", json=SMALL)
    assert int(answer.headers["retry-after"]) >= 1
    assert "wait already" in error_of(answer, 429)
    serving.service.submit = None  # type: ignore[method-assign, assignment]
    serving.service.check_room = lambda: None  # type: ignore[method-assign]
    assert error_of(client.post("/v1/videos", json=SMALL), 500) == "The server made a mistake."


def test_health_models_and_numbers(client: TestClient, serving: Serving) -> None:
    made(client)
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/v1/models").json()["data"][0]["id"] == "fake"
    # A job is counted once the table has it.
    completed = 'hotshot_jobs_total{status="completed"} 1.0'
    until(lambda: completed in client.get("/metrics").text)
    assert "hotshot_queue_jobs 0.0" in client.get("/metrics").text
    serving.service.closing = True
    assert client.get("/health").status_code == 503
    assert "shutting down" in error_of(client.post("/v1/videos", json=SMALL), 503)


def test_nothing_is_fetched_from_elsewhere(client: TestClient) -> None:
    for path in ("/docs", "/redoc"):
        error_of(client.get(path), 404)
    schema = client.get("/openapi.json").json()
    body = schema["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert body["application/json"]["examples"]["clip"]["value"]["prompt"]


def test_failed_jobs_say_why(client: TestClient, serving: Serving) -> None:
    def fail(clips: Any) -> None:
        raise RuntimeError("secret")

    serving.making.at_step = fail
    id = client.post("/v1/videos", json=SMALL).json()["id"]
    until(lambda: serving.service.job(id).status == Status.FAILED)
    error = client.get(f"/v1/videos/{id}").json()["error"]
    assert error["code"] == "server_error" and "secret" not in error["message"]
