"""A server that is killed at any moment loses nothing that it accepted, and leaves nothing half."""

import contextlib
import http.client
import itertools
import json
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.reading.read import open_clip
from hotshot_jax.server.kept_frames import KeptFrames
from tests.server.fakes import frames_of, until

ROOT = Path(__file__).parents[2]
FRAMES, SIDE = 2, 16


def ask(port: int, path: str, body: Any = None, method: str | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    url = f"http://127.0.0.1:{port}{path}"
    request = urllib.request.Request(url, content, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer)


def answers(port: int) -> bool:
    with contextlib.suppress(OSError):
        return bool(ask(port, "/health"))
    return False


@contextlib.contextmanager
def server(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-m", "tests.server.fake_server", str(folder)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            port = int(process.stdout.readline())
            until(lambda: answers(port), 120)
            yield process, port
        finally:
            process.kill()


def load(
    port: int,
    seeds: Iterator[int],
    accepted: dict[str, int],
    cancelled: set[str],
    answered: threading.Event,
) -> None:
    """Asks for clips until nobody answers; some are cancelled."""
    with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
        while True:
            seed = next(seeds)
            body = {
                "prompt": f"clip {seed}",
                "seed": seed,
                "size": f"{SIDE}x{SIDE}",
                "num_frames": FRAMES,
                "num_inference_steps": 3,
            }
            try:
                id = ask(port, "/v1/videos", body)["id"]
            except urllib.error.HTTPError as full:
                assert full.code == 429
                answered.set()
                time.sleep(0.05)
                continue
            accepted[id] = seed
            answered.set()
            if seed % 7 == 0:
                cancelled.add(id)
                ask(port, f"/v1/videos/{id}", method="DELETE")


def killed(folder: Path, kills: int, seed: int) -> None:
    moments, seeds = random.Random(seed), itertools.count()
    accepted: dict[str, int] = {}
    cancelled: set[str] = set()
    for _ in range(kills):
        with server(folder) as (process, port):
            answered = threading.Event()
            arguments = (port, seeds, accepted, cancelled, answered)
            senders = [threading.Thread(target=load, args=arguments) for _ in range(2)]
            for sender in senders:
                sender.start()
            # From then on there is something to lose.
            assert answered.wait(120)
            time.sleep(moments.uniform(0.0, 1.0))
            process.send_signal(signal.SIGKILL)
            for sender in senders:
                sender.join()
    assert accepted
    with server(folder) as (process, port):

        def standing() -> dict[str, Any]:
            found: dict[str, Any] = {}
            after = ""
            while True:
                page = ask(port, f"/v1/videos?limit=100{after}")
                found |= {job["id"]: job for job in page["data"]}
                if not page["has_more"]:
                    return found
                after = f"&after={page['last_id']}"

        def all_ended() -> dict[str, Any] | None:
            now = standing()
            live = [each for each in now.values() if each["status"] in ("queued", "in_progress")]
            return None if live else now

        ended = until(all_ended, 300)
        lost = {id for id in accepted if id not in ended} - cancelled
        assert not lost
        for id in ended.keys() - cancelled:
            if ended[id]["status"] != "completed":
                # The bad luck of being made at three of the moments.
                assert kills > 2 and "ended 3 times" in ended[id]["error"]["message"]
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    for id, job in ended.items():
        place = folder / "jobs" / id
        if job["status"] != "completed":
            assert not place.exists()
            continue
        assert sorted(each.name for each in place.iterdir()) == ["clip.gif", "frames.kept"]
        if id in accepted:
            number = accepted[id]
            clip = ClipSettings(
                f"clip {number}", seed=number, width=SIDE, height=SIDE, video_length=FRAMES
            )
            kept = KeptFrames.read(place / "frames.kept").frames
            np.testing.assert_array_equal(kept, frames_of(clip))
        assert len(open_clip(place / "clip.gif").durations_ms) == FRAMES
    assert {each.name for each in (folder / "jobs").iterdir()} <= set(ended)
    table = sqlite3.connect(folder / "jobs.sqlite")
    assert table.execute("pragma integrity_check").fetchone() == ("ok",)
    table.close()


def test_what_was_accepted_is_made_after_a_kill(tmp_path: Path) -> None:
    killed(tmp_path, 1, 0)


@pytest.mark.slow
def test_what_was_accepted_is_made_after_thirty_kills(tmp_path: Path) -> None:
    killed(tmp_path, 30, 1)
