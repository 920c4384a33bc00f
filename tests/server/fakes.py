"""A maker that makes what it is told in no time, and a service around it."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hotshot_jax.cli.serve.planner import InferPlanner
from hotshot_jax.jobs.maker import Cancelled, Clip, ClipMaker
from hotshot_jax.jobs.settings import ClipSettings
from hotshot_jax.media.stored_frames import StoredFrames
from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.runtime.progress import NoProgress, Progress
from hotshot_jax.server.job import Job
from hotshot_jax.server.limits import Limits, ServedModel
from hotshot_jax.server.service import Service
from hotshot_jax.server.store import JobStore
from hotshot_jax.server.worker import Pace


def frames_of(clip: ClipSettings) -> np.ndarray:
    """Frames that only this clip has."""
    random = np.random.default_rng([clip.seed, *clip.prompt.encode()])
    shape = (clip.video_length, clip.height, clip.width, 3)
    return random.integers(0, 256, shape, np.uint8)


def flat_frames(clip: ClipSettings) -> np.ndarray:
    """Frames that are written quickly."""
    return np.full((clip.video_length, clip.height, clip.width, 3), 128, np.uint8)


def latents_of(clips: Sequence[ClipSettings]) -> np.ndarray:
    """What latents of clips could be."""
    first = clips[0]
    shape = (len(clips), first.video_length, first.height // 8, first.width // 8, 4)
    return np.random.default_rng(first.seed).normal(size=shape).astype(np.float32)


@dataclasses.dataclass
class Making:
    """What a fake maker does, and what it was asked for.

    Attributes:
        gate: steps wait for it.
        halfway: halfway through steps, of which there are two or more, latents are shown until it
            is set.
        at_step: called before each step with the clips.
        at_clip: called before each clip is given.
        batches: prompts of each call.
        asked: what `Models.lent` was called with.
        compiles: whether something is compiled.
        frames: what is made.
    """

    gate: threading.Event = dataclasses.field(default_factory=threading.Event)
    halfway: threading.Event = dataclasses.field(default_factory=threading.Event)
    at_step: Callable[[Sequence[ClipSettings]], object] = lambda clips: None
    at_clip: Callable[[ClipSettings], object] = lambda clip: None
    batches: list[list[str]] = dataclasses.field(default_factory=list)
    asked: list[Any] = dataclasses.field(default_factory=list)
    compiles: bool = False
    frames: Callable[[ClipSettings], np.ndarray] = frames_of

    def __post_init__(self) -> None:
        self.gate.set()
        self.halfway.set()


class FakeModels:
    positions = 24

    def __init__(self, making: Making):
        self._making = making

    @contextlib.contextmanager
    def lent(
        self,
        batch_size: int = 1,
        loras: Iterable[tuple[str, float]] = (),
        controlnets: Sequence[str] = (),
    ) -> Iterator[ClipMaker]:
        self._making.asked.append((batch_size, tuple(loras), tuple(controlnets)))
        yield FakeMaker(self._making)


class FakeMaker(ClipMaker):
    def __init__(self, making: Making):
        self._making = making

    def make(
        self,
        clips: Sequence[ClipSettings],
        controls: Any = (),
        start: Any = None,
        *,
        progress: Progress | None = None,
        cancelled: Callable[[], bool] | None = None,
        watch: Callable[[Any], object] | None = None,
    ) -> Iterator[Clip]:
        progress, making = progress or NoProgress(), self._making
        making.batches.append([clip.prompt for clip in clips])
        if making.compiles:
            with progress.compiling("denoising step"):
                making.gate.wait(60)
        with progress.stage("denoising", clips[0].steps, "step") as advance:
            for step in range(clips[0].steps):
                making.gate.wait(60)
                making.at_step(clips)
                if cancelled is not None and cancelled():
                    raise Cancelled("The job was cancelled.")
                advance(1)
                if watch is not None:
                    watch(latents_of(clips))
                while 0 < step == clips[0].steps // 2 and not making.halfway.wait(0.02):
                    if cancelled is not None and cancelled():
                        raise Cancelled("The job was cancelled.")
                    if watch is not None:
                        watch(latents_of(clips))
        for clip in clips:
            making.at_clip(clip)
            frames = StoredFrames(clip.height or 0, clip.width or 0)
            frames.append(making.frames(clip))
            yield Clip(clip, 0, frames)


class Serving:
    """A service over a fake maker."""

    def __init__(
        self,
        folder: Path,
        making: Making | None = None,
        limits: Limits | None = None,
        pace: Pace | None = None,
        planner: InferPlanner | None = None,
        colors: LatentColors | None = None,
    ):
        self.making = making or Making()
        self.store = JobStore(folder)
        self.service = Service(
            self.store,
            FakeModels(self.making),
            planner or InferPlanner({}, controlnets={}),
            ServedModel("fake"),
            limits,
            pace,
            colors,
        )

    def __enter__(self) -> "Serving":
        self.service.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.making.gate.set()
        self.making.halfway.set()
        self.service.stop()
        self.store.close()

    def submit(self, prompt: str = "a", kind: str = "video", **values: Any) -> str:
        return self.service.submit(kind, asked(prompt, **values)).id

    def ended(self, id: str, seconds: float = 60) -> Job:
        return until(lambda: (job := self.service.job(id)).finished and job, seconds)


def asked(prompt: str = "a", **values: Any) -> dict[str, Any]:
    """What a small clip is asked for with."""
    small = {"width": 16, "height": 16, "video_length": 2, "steps": 2, "seed": 1}
    return small | {"prompt": prompt} | values


def until(condition: Callable[[], Any], seconds: float = 60) -> Any:
    """What a condition gives when it is met."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return value


def error_of(answer: Any, status: int) -> str:
    """The message of a refusal that has the one shape of all of them."""
    assert answer.status_code == status, answer.text
    (error,) = answer.json().values()
    assert set(error) == {"message", "type", "code"} and all(error.values())
    message: str = error["message"]
    return message
