"""Training on single frames: random moments of clips, and temporal layers that stay as they are."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from hotshot_jax.data.loader import Loader, LoaderConfig
from hotshot_jax.data.open_data import open_data
from tests.training.conftest import Run

UNET = "unet/diffusion_pytorch_model.safetensors"


def test_a_sample_is_a_random_moment_of_a_clip_in_the_square_bucket() -> None:
    opened = open_data("shapes:train?length=40&seed=3&size=128", 1)
    config = LoaderConfig(20, frames=1, resolution=128, aspect_ratio="1:1", threads=1)
    with Loader(opened.source, config) as loader:
        batches = [next(loader) for _ in range(6)]
    first = batches[0]
    assert loader.used_sizes == [(128, 128)]
    assert first.frames.shape == (20, 1, 128, 128, 3)
    # Original size, crop and target size, in the reference's order.
    np.testing.assert_array_equal(first.time_ids, [[128, 128, 0, 0, 128, 128]] * 20)
    assert {int(moment) for batch in batches for moment in batch.first_frames} == set(range(8))
    clip, moment = int(first.indices[0]), int(first.first_frames[0])
    wanted = opened.source[clip].frame(moment)
    np.testing.assert_array_equal(first.frames[0, 0], wanted)
    # Another epoch shows other moments of the same clips.
    by_epoch = [dict(zip(b.indices, b.first_frames, strict=True)) for b in batches]
    epochs = [{**by_epoch[i], **by_epoch[i + 1]} for i in (0, 2, 4)]
    assert all(len(epoch) == 40 for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_a_source_of_single_frames_draws_one_moment_of_each_clip() -> None:
    whole = open_data("shapes:train?length=30&seed=3&size=32", 8).source
    single = open_data("shapes:train?length=30&seed=3&size=32&frames=1", 1).source
    assert set(single.table["frames"]) == {1}
    assert [single[i].prompt for i in range(30)] == [whole[i].prompt for i in range(30)]
    # Each is another moment than the clip's first frame, mostly.
    moving = [i for i in range(30) if "standing still" not in single[i].prompt]
    equal = [np.array_equal(single[i].frame(0), whole[i].frame(0)) for i in moving]
    assert sum(equal) < len(moving) / 4


@pytest.mark.slow
@pytest.mark.parametrize("selection", ["spatial", "unet"])
def test_only_spatial_layers_change(
    selection: str, train: Callable[..., Run], tiny_checkpoint: Path
) -> None:
    given: list[Any] = ["--data_dir", "shapes:train?length=8&seed=1&size=16", "--video_length", 1]
    given += ["--train", selection, "--max_train_steps", 1, "--aspect_ratio", "1:1"]
    if selection == "unet":
        given += ["--test_prompts", "a red circle", "--validation_steps", 1]
        given += ["--validate_every_steps", 1]
    run = train(*given)
    assert run.status == 0, run.stderr
    before, after = load_file(tiny_checkpoint / UNET), load_file(run.output / "export" / UNET)
    for name, tensor in before.items():
        same = np.array_equal(tensor, after[name])
        assert same == ("temporal_attentions" in name), name
    if selection == "unet":
        assert list((run.output / "validation").rglob("*.gif"))


def test_temporal_layers_need_several_frames(train: Callable[..., Run]) -> None:
    run = train("--video_length", 1)
    assert run.status == 2 and "--train spatial" in run.stderr


@pytest.mark.parametrize("query", ["size=32&frames=2", "frames=0"])
def test_a_source_of_too_few_frames_is_refused(train: Callable[..., Run], query: str) -> None:
    run = train("--data_dir", f"shapes:train?{query}")
    assert run.status == 2 and "frames is" in run.stderr
