"""Memory over minutes of mixed load: clips, mistakes, cancellations and readers that are slow."""

import json
import random
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from benchmarks.serve.asking import Server
from benchmarks.serve.throughput import body

_BAD: tuple[tuple[str, Any], ...] = (
    ("/v1/videos", {}),
    ("/v1/videos", {"prompt": "(a"}),
    ("/v1/videos", {"prompt": "a", "num_frames": 100_000}),
    ("/v1/videos", {"prompt": "a", "size": "4096x4096"}),
    ("/v1/videos", {"prompt": "a", "lora": {"name": "../x"}}),
    ("/v1/videos/sync", {"prompt": "a" * 70_000}),
    ("/v1/images/generations", {"prompt": "a", "response_format": "url"}),
    ("/v1/videos/video_x/content", None),
)


def mixed_load(server: Server, minutes: float, steps: int) -> dict[str, Any]:
    """Puts load on a server.

    Args:
        server: the server.
        minutes: how long.
        steps: of each clip.
    """
    end = time.monotonic() + 60 * minutes
    answered: Counter[str] = Counter()
    shapeless: list[bytes] = []

    def good(chance: random.Random) -> None:
        server.made(body(chance.randrange(1000), steps))
        answered["clips"] += 1

    def bad(chance: random.Random) -> None:
        path, wrong = chance.choice(_BAD)
        status, content = server.ask(path, wrong)
        answered[str(status)] += 1
        if status < 400 or set(json.loads(content)) != {"error"}:
            shapeless.append(content[:200])
        time.sleep(0.02)

    def cancelling(chance: random.Random) -> None:
        status, content = server.ask("/v1/videos", body(chance.randrange(1000), steps))
        if status == 200:
            time.sleep(chance.uniform(0, 2))
            server.ask(f"/v1/videos/{json.loads(content)['id']}", method="DELETE")
            answered["cancelled"] += 1

    def slow(chance: random.Random) -> None:
        address = urlsplit(server.url)
        with socket.create_connection((address.hostname or "", address.port or 0)) as line:
            line.settimeout(5)
            line.sendall(b"GET /v1/videos?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n")
            for _ in range(chance.randrange(50)):
                time.sleep(0.05)
                line.recv(16)
        answered["slow readers"] += 1

    def keep_on(what: Callable[[random.Random], None], seed: int) -> None:
        chance = random.Random(seed)
        while time.monotonic() < end:
            try:
                what(chance)
            except OSError:
                answered["dropped"] += 1

    kinds = (good, good, bad, cancelling, slow)
    threads = [
        threading.Thread(target=keep_on, args=each) for each in zip(kinds, range(5), strict=True)
    ]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    memory = [(0.0, server.resident_bytes)]
    while time.monotonic() < end:
        time.sleep(2)
        memory.append((time.monotonic() - start, server.resident_bytes))
    for thread in threads:
        thread.join()
    early = [size for at, size in memory if at <= 60 * min(2.0, minutes / 2)]
    by_minute = {int(at // 60): size >> 20 for at, size in memory}
    return {
        "minutes": minutes,
        "resident_mb_by_minute": list(by_minute.values()),
        "resident_early": early[-1],
        "resident_at_end": memory[-1][1],
        "ratio": round(memory[-1][1] / early[-1], 4),
        "answered": dict(answered),
        "errors_of_another_shape": len(shapeless),
    }
