"""Files that are sent along: what becomes of them, and what is not taken from their senders."""

import errno
import io
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from hotshot_jax.builtin import builtin_controlnets
from hotshot_jax.cli.serve.planner import InferPlanner
from hotshot_jax.media.write import write_video
from hotshot_jax.server.api.app import create_app
from hotshot_jax.server.kept_frames import KeptFrames
from tests.server.fakes import Serving, until

FIELDS = {"prompt": "a fox", "size": "16x16", "num_frames": "4", "num_inference_steps": "2"}
RANDOM = np.random.default_rng(0)
CLIP = RANDOM.integers(0, 256, (4, 16, 16, 3), np.uint8)


def png(size: int = 16) -> bytes:
    kept = io.BytesIO()
    Image.fromarray(RANDOM.integers(0, 256, (size, size, 3), np.uint8)).save(kept, "PNG")
    return kept.getvalue()


@pytest.fixture(scope="module")
def gif(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("clips") / "a.gif"
    return write_video(path, CLIP, 1000, {}).read_bytes()


def post(client: TestClient, files: dict[str, Any], **fields: str) -> Any:
    return client.post("/v1/videos", data=FIELDS | fields, files=files)


def planned(serving: Serving, id: str) -> Any:
    from hotshot_jax.server import results

    folder = serving.store.job_folder(id)
    return serving.service._planned(serving.service.job(id).values, results.uploads(folder))


def test_pictures_become_known_frames(client: TestClient, serving: Serving) -> None:
    serving.making.gate.clear()
    first, third = png(), png(32)
    answer = post(client, {"input_reference": first, "frame_at_2": third, "last_frame": png()})
    assert answer.status_code == 200, answer.text
    plan = planned(serving, answer.json()["id"])
    assert sorted(plan.start.known_frames) == [0, 2, 3]
    picture = np.asarray(Image.open(io.BytesIO(first)))
    np.testing.assert_array_equal(plan.start.known_frames[0], picture)
    assert plan.shared() is None
    assert '"first_frame": "first_frame"' in plan.metadata["settings"]
    assert any("32 x 32" in each for each in plan.warnings)
    assert str(serving.store.folder) not in str((plan.metadata, plan.warnings))


def test_files_wait_with_their_job_for_the_next_start(tmp_path: Path) -> None:
    with Serving(tmp_path) as serving:
        serving.making.gate.clear()
        first = serving.submit("first", steps=50)
        with TestClient(create_app(serving.service), base_url="http://localhost") as client:
            id = post(client, {"first_frame": png()}).json()["id"]
        serving.making.at_step = lambda clips: serving.service._worker._stopping.wait(10)
        serving.making.gate.set()
    with Serving(tmp_path) as serving:
        assert {serving.ended(each).status for each in (first, id)} == {"completed"}
        assert planned(serving, id).start.known_frames


def test_a_clip_is_started_from_with_a_mask(
    client: TestClient, serving: Serving, gif: bytes
) -> None:
    serving.making.gate.clear()
    answer = post(client, {"video": gif, "mask": png()}, strength="0.5", num_frames="3")
    plan = planned(serving, answer.json()["id"])
    assert plan.start.video.shape == (3, 16, 16, 3) and plan.start.strength == 0.5
    assert plan.start.mask.shape == (3, 16, 16)


def test_a_clip_goes_on(client: TestClient, serving: Serving, gif: bytes) -> None:
    answer = post(client, {"extend": gif}, num_frames="2")
    id, told = answer.json()["id"], answer.json()
    assert told["num_frames"] == 6
    until(lambda: serving.service.job(id).finished)
    made = KeptFrames.read(serving.store.job_folder(id) / "frames.kept")
    assert made.frames.shape == (6, 16, 16, 3)


def test_a_clip_is_followed(tmp_path: Path, gif: bytes) -> None:
    nets = {name: str(path) for name, path in builtin_controlnets().items()}
    with (
        Serving(tmp_path, planner=InferPlanner({}, controlnets=nets)) as serving,
        TestClient(create_app(serving.service), base_url="http://localhost") as client,
    ):
        answer = post(
            client, {"control": gif}, controlnet="canny", controlnet_conditioning_scale='{"0": 1}'
        )
        id = answer.json()["id"]
        until(lambda: serving.service.job(id).finished)
        assert serving.making.asked == [(1, (), ("canny",))]
        error = post(client, {"control": gif}).json()["error"]["message"]
        assert error == "`controlnet` is missing. There are: canny."
        error = post(client, {"first_frame": png()}, controlnet="canny").json()["error"]["message"]
        assert "`control`" in error
        error = post(client, {"control": gif}, controlnet="canny", control_type="depth").json()
        assert "depth" in error["error"]["message"]


@pytest.mark.parametrize(
    ("files", "fields", "message"),
    [
        ({"first_frame": b"hello"}, {}, "`first_frame` is not a picture or clip"),
        ({"first_frame": b""}, {}, "`first_frame` is empty"),
        ({"first_frame": "gif"}, {}, "`first_frame` is a clip; expected a picture."),
        ({"video": b"RIFF0000AVI nothing"}, {}, "`video` "),
        ({"video": b"#EXTM3U\nhttp://10.0.0.1/a.ts\n"}, {}, "`video` is not a picture or clip"),
        ({"video": b"<svg><image href='file:///etc/passwd'/></svg>"}, {}, "`video` is not"),
        ({"video": "png"}, {"smooth": "1"}, "`smooth` needs a clip"),
        ({"mask": "png"}, {}, "`mask` needs `video`"),
        ({"frame_at_9": "png"}, {}, "`frame_at`"),
        ({"frame_at_": "png"}, {}, "no use for that file"),
        ({"../../etc/passwd": "png"}, {}, "no use for that file"),
        ({"prompt": b"x"}, {}, "no use for that file"),
    ],
)
def test_what_cannot_be_used_is_told_by_its_name(
    client: TestClient,
    serving: Serving,
    gif: bytes,
    files: dict[str, Any],
    fields: dict[str, str],
    message: str,
) -> None:
    made = {"gif": gif, "png": png()}
    sent = {name: made.get(content, content) for name, content in files.items()}
    answer = post(client, sent, **fields)
    assert answer.status_code == 400, answer.text
    told = answer.json()["error"]["message"]
    assert message in told
    assert "/tmp" not in told and "hotshot-jax-" not in told and "--" not in told
    assert not list((serving.store.folder / "jobs").iterdir())


def test_the_name_of_a_file_is_not_looked_at(client: TestClient, serving: Serving) -> None:
    serving.making.gate.clear()
    name = "../../../evil\0/\x1b[2J.png"
    answer = post(client, {"first_frame": (name, png(), "image/png")})
    folder = serving.store.job_folder(answer.json()["id"])
    assert os.listdir(folder / "uploads") == ["first_frame"]
    assert "evil" not in str(planned(serving, answer.json()["id"]).metadata)


def test_a_part_is_sent_once(client: TestClient) -> None:
    twice = [("first_frame", png()), ("input_reference", png())]
    answer = client.post("/v1/videos", data=FIELDS, files=twice)
    assert answer.json()["error"]["message"] == "first_frame is sent twice; send it once."


def test_a_clip_beyond_the_limits_is_refused(client: TestClient) -> None:
    wide = Image.new("1", (9000, 8))
    kept = io.BytesIO()
    wide.save(kept, "PNG")
    told = post(client, {"first_frame": kept.getvalue()}).json()["error"]["message"]
    assert "at most 8192" in told


def test_pictures_of_one_request_are_counted_together(client: TestClient) -> None:
    kept = io.BytesIO()
    Image.new("1", (8192, 8192)).save(kept, "PNG")
    sent = {f"frame_at_{frame}": kept.getvalue() for frame in range(5)}
    told = post(client, sent, num_frames="8").json()["error"]["message"]
    assert "335 million pixels together; a request may bring up to 268 million" in told


def test_a_full_disk_is_told(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    answer = post(client, {"first_frame": png()})
    assert answer.status_code == 507
    told = "The server cannot keep this: No space left on device."
    assert answer.json()["error"]["message"] == told


def test_nothing_of_uploads_is_left_in_the_temporary_folder(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    post(client, {"first_frame": png()})
    post(client, {"first_frame": b"hello"})
    until(lambda: not list(place.iterdir()))
