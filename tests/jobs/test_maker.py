"""Jobs: which clips are made together, and what becomes of those that nobody wants any more."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hotshot_jax.jobs.maker import Cancelled, ClipMaker, batches
from hotshot_jax.jobs.settings import ClipSettings, ModelSettings
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.runtime.progress import Advance, NoProgress

FOX = ClipSettings("a fox", width=64, height=64, video_length=2, steps=2, seed=1)
WHALE = dataclasses.replace(FOX, prompt="a whale", seed=2)
Batches = list[tuple[str, int]]


class Watcher(NoProgress):
    """Notes what is reported."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    @contextlib.contextmanager
    def stage(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        yield lambda units: self.seen.append(name)


@pytest.fixture(scope="module")
def maker(tiny_checkpoint: Path) -> ClipMaker:
    return ClipMaker.load(ModelSettings(str(tiny_checkpoint), precision="f32"))


def made(clips: list[ClipSettings], size: int) -> Batches:
    return [("".join(clip.prompt for clip in some), to) for some, to in batches(clips, size)]


def clips(prompts: str, **settings: Any) -> list[ClipSettings]:
    return [ClipSettings(prompt, seed=n, **settings) for n, prompt in enumerate(prompts)]


def test_neighbours_that_are_alike_go_together() -> None:
    assert made(clips("abcde"), 2) == [("ab", 2), ("cd", 2), ("e", 2)]
    assert made(clips("ab") + clips("cd", width=64), 2) == [("ab", 2), ("cd", 2)]
    assert made(clips("ab") + clips("c", width=64), 2) == [("ab", 2), ("c", 1)]


@pytest.mark.parametrize(
    "settings", [{"num_videos": 2}, {"long_prompts": True}, {"negative_prompt": "a BREAK b"}]
)
def test_what_would_not_be_as_it_is_alone_is_made_alone(settings: dict[str, Any]) -> None:
    assert made(clips("a"), 4) == [("a", 1)]
    assert made(clips("ab", **settings), 4) == [("a", 1), ("b", 1)]


def test_negative_prompts_may_differ_unless_one_is_missing() -> None:
    alike = clips("a", negative_prompt="x") + clips("b", negative_prompt="")
    assert made(alike, 2) == [("ab", 2)]
    assert made(alike + clips("c", negative_prompt=None), 4) == [("ab", 4), ("c", 1)]


def test_clips_of_a_batch_are_what_the_pipeline_makes_of_each(maker: ClipMaker) -> None:
    batched = ClipMaker(maker.pipeline, batch_size=2)
    third = dataclasses.replace(FOX, seed=3, negative_prompt="a house")
    results = list(batched.make([FOX, WHALE, third, FOX]))
    assert [clip.settings for clip in results] == [FOX, WHALE, third, FOX]
    for clip in results:
        videos = maker.pipeline(
            clip.settings.prompt,
            negative_prompt=clip.settings.negative_prompt,
            height=64,
            width=64,
            video_length=2,
            num_inference_steps=2,
            seed=clip.settings.seed,
            original_size=(1920, 1080),
            target_size=(512, 512),
        ).videos
        assert np.abs(np.asarray(clip.frames) - to_uint8(videos[0]).astype(int)).max() <= 1
    assert results[0].metadata["video"] == "1 of 1"


def test_a_job_is_cancelled_between_two_steps_and_the_next_is_as_ever(maker: ClipMaker) -> None:
    (before,) = maker.make([FOX])
    watcher = Watcher()
    with pytest.raises(Cancelled):
        list(maker.make([FOX], progress=watcher, cancelled=lambda: "denoising" in watcher.seen))
    assert watcher.seen.count("denoising") == 1
    (after,) = maker.make([FOX], cancelled=lambda: False)
    np.testing.assert_array_equal(after.frames, before.frames)
    assert maker.pipeline.runtime.progress is not watcher


def test_a_job_that_is_cancelled_at_once_does_nothing(maker: ClipMaker) -> None:
    watcher = Watcher()
    with pytest.raises(Cancelled):
        next(maker.make([FOX], progress=watcher, cancelled=lambda: True))
    assert watcher.seen == []
