"""Clips a second: several clients at once, against the same work one after the other."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from benchmarks.serve.asking import Server

_SHAPES = ("circle", "square", "triangle", "star", "cross")


def body(number: int, steps: int) -> dict[str, Any]:
    """A request; each number is another clip."""
    shape = _SHAPES[number % len(_SHAPES)]
    return {
        "prompt": f"a red {shape} moving right on a black background",
        "seed": number,
        "num_inference_steps": steps,
    }


def throughput(server: Server, clips: int, clients: int, steps: int) -> dict[str, Any]:
    """Measures both, the alternating halves of several rounds together.

    Args:
        server: that is asked.
        clips: of each way.
        clients: at once.
        steps: of denoising.
    """
    server.made(body(0, steps))
    rounds = max(1, clips // (2 * clients))
    seconds = {"alone": 0.0, "together": 0.0}
    made: dict[str, dict[int, bytes]] = {"alone": {}, "together": {}}
    names: list[str] = []
    with ThreadPoolExecutor(clients) as pool:
        for number in range(rounds):
            mine = range(number * clients, (number + 1) * clients)
            for way, mapped in (("alone", map), ("together", pool.map)):
                start = time.monotonic()
                found = list(mapped(lambda each: server.made(body(each, steps)), mine))
                seconds[way] += time.monotonic() - start
                made[way] |= {each: gif for each, (_, gif) in zip(mine, found, strict=True)}
                names += [id for id, _ in found]
    return {
        "clips": rounds * clients,
        "seconds_alone": round(seconds["alone"], 2),
        "seconds_together": round(seconds["together"], 2),
        "ratio": round(seconds["alone"] / seconds["together"], 3),
        "answered_twice": len(names) - len(set(names)),
        "equal_files": sum(made["alone"][each] == made["together"][each] for each in made["alone"]),
    }
