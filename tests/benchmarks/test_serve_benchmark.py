"""The benchmark of the server, against one that answers at once."""

import json
import threading
from typing import Any

from benchmarks.serve import mixed_load as mixed
from benchmarks.serve.throughput import throughput


class AnswersAtOnce:
    url = "http://127.0.0.1:1"
    resident_bytes = 1 << 20

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.made_so_far = 0

    def made(self, body: Any) -> tuple[str, bytes]:
        with self._lock:
            self.made_so_far += 1
            return f"video_{self.made_so_far}", json.dumps(body).encode()

    def ask(self, path: str, body: Any = None, method: str | None = None) -> tuple[int, bytes]:
        right = body is not None and "num_inference_steps" in body
        return (200, b'{"id": "video_1"}') if right else (400, b'{"error": {}}')


def test_both_ways_make_the_same_clips() -> None:
    server: Any = AnswersAtOnce()
    result = throughput(server, clips=16, clients=4, steps=1)
    assert (result["clips"], result["answered_twice"], result["equal_files"]) == (8, 0, 8)
    assert server.made_so_far == 17


def test_mixed_load_counts_what_is_answered() -> None:
    server: Any = AnswersAtOnce()
    result = mixed.mixed_load(server, minutes=0.05, steps=1)
    assert result["ratio"] == 1.0 and result["errors_of_another_shape"] == 0
    assert result["answered"]["clips"] > 0 and result["answered"]["400"] > 0
