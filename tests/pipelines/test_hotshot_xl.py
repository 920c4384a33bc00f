"""The pipeline's call: what it accepts, and what its arguments do."""

from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.pipelines import HotshotXLPipeline

SIZE: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": 2}


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")


def test_videos_have_the_documented_form(pipeline: HotshotXLPipeline) -> None:
    videos = pipeline("a fox", video_length=4, **SIZE).videos
    assert videos.shape == (1, 4, 16, 16, 3)
    assert videos.dtype == np.float32
    assert videos.min() >= 0
    assert videos.max() <= 1


def test_output_types(pipeline: HotshotXLPipeline) -> None:
    latent = pipeline("a fox", output_type="latent", **SIZE).videos
    assert latent.shape == (1, 8, 2, 2, 4)
    images = pipeline("a fox", output_type="pil", **SIZE).videos
    assert len(images) == 1
    assert images[0][7].size == (16, 16)


def test_a_batch_gives_what_its_prompts_give_alone(pipeline: HotshotXLPipeline) -> None:
    # At 16 x 16 the lowest level has one pixel, whose per-frame group norms have two values: their
    # signs are all that is left, and round-off decides some of them.
    size = SIZE | {"height": 64, "width": 64}
    together = pipeline(
        ["a fox", "a whale"], negative_prompt=["blurry", "grey"], seed=[1, 2], **size
    ).videos
    for index, (prompt, negative) in enumerate((("a fox", "blurry"), ("a whale", "grey"))):
        alone = pipeline(prompt, negative_prompt=negative, seed=index + 1, **size).videos
        # float32, summed in another order; 1e-5 was seen.
        np.testing.assert_allclose(together[index], alone[0], atol=1e-4)


def test_embeddings_stand_for_prompts(pipeline: HotshotXLPipeline) -> None:
    from hotshot_jax.conditioning.text.prompt import PromptEncoder

    encoder = PromptEncoder(pipeline.runtime)
    positive, negative = encoder.prompts("a fox", None), encoder.prompts("blurry", None)
    by_embeddings = pipeline(
        prompt_embeds=positive.hidden,
        pooled_prompt_embeds=positive.pooled,
        negative_prompt_embeds=negative.hidden,
        negative_pooled_prompt_embeds=negative.pooled,
        **SIZE,
    ).videos
    by_text = pipeline("a fox", negative_prompt="blurry", **SIZE).videos
    np.testing.assert_array_equal(by_embeddings, by_text)


def test_no_negative_prompt_is_not_an_empty_one(pipeline: HotshotXLPipeline) -> None:
    none = pipeline("a fox", **SIZE).videos
    empty = pipeline("a fox", negative_prompt="", **SIZE).videos
    assert np.abs(none - empty).max() > 1e-3


def test_the_second_prompt_reaches_the_second_encoder(pipeline: HotshotXLPipeline) -> None:
    one = pipeline("a fox", **SIZE).videos
    two = pipeline("a fox", "a whale", **SIZE).videos
    assert np.abs(one - two).max() > 1e-3


def test_clip_skip_changes_the_embeddings(pipeline: HotshotXLPipeline) -> None:
    one = pipeline("a fox", **SIZE).videos
    two = pipeline("a fox", clip_skip=1, **SIZE).videos
    assert np.abs(one - two).max() > 1e-3


def test_callbacks_see_and_change_the_latents(pipeline: HotshotXLPipeline) -> None:
    seen: list[tuple[int, float]] = []

    def callback(
        _: HotshotXLPipeline, step: int, timestep: float, values: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        seen.append((step, timestep))
        return {"latents": values["latents"] * 0}

    latents = pipeline("a fox", output_type="latent", callback_on_step_end=callback, **SIZE).videos
    assert [step for step, _ in seen] == [0, 1]
    assert seen[0][1] > seen[1][1]
    assert not np.asarray(latents).any()


def test_given_latents_replace_the_draw(pipeline: HotshotXLPipeline) -> None:
    from hotshot_jax.sampling.noise import make_noise

    shape = (1, 8, 2, 2, 4)
    draws = make_noise("torch", [9], np.dtype(np.float32))
    initial, *steps = (draws.draw(shape) for _ in range(3))
    given = pipeline("a fox", latents=initial, noise=iter(steps), **SIZE).videos
    drawn = pipeline("a fox", seed=9, **SIZE).videos
    np.testing.assert_array_equal(given, drawn)


def test_denoising_can_end_early(pipeline: HotshotXLPipeline) -> None:
    calls: list[int] = []

    def count(
        _: HotshotXLPipeline, step: int, __: float, values: dict[str, jax.Array]
    ) -> dict[str, jax.Array]:
        calls.append(step)
        return values

    arguments = SIZE | {"num_inference_steps": 10}
    pipeline("a fox", denoising_end=0.5, callback_on_step_end=count, **arguments)
    assert len(calls) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"height": 12}, "`height` is 12"),
        ({"width": 0}, "`width` is 0"),
        ({"width": 10**6}, "width"),
        ({"video_length": 1025}, "`video_length` is 1025"),
        ({"video_length": 0}, "`video_length` is 0"),
        ({"guidance_scale": float("nan")}, "guidance_scale"),
        ({"guidance_rescale": 2.0}, "guidance_rescale"),
        ({"eta": -1.0}, "eta"),
        ({"clip_skip": 99}, "clip_skip"),
        ({"num_inference_steps": 0}, "num_inference_steps is 0"),
        ({"output_type": "gif"}, "output_type"),
        ({"noise": "numpy"}, "noise"),
        ({"seed": [1, 2, 3]}, "3 seeds for 1 videos"),
        ({"latents": np.zeros((1, 8, 3, 3, 4), np.float32)}, "latents has the shape"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"prompt_embeds": np.zeros((1, 77, 64))}, "pooled"),
        ({"prompt": None}, "Neither prompt nor prompt_embeds"),
    ],
)
def test_what_cannot_be_done_is_refused(
    pipeline: HotshotXLPipeline, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pipeline(**({"prompt": "a fox"} | SIZE | arguments))


def test_results_that_are_not_finite_are_an_error(pipeline: HotshotXLPipeline) -> None:
    broken = np.full((1, 8, 2, 2, 4), np.nan, np.float32)
    with pytest.raises(HotshotError, match="not finite"):
        pipeline("a fox", latents=broken, **SIZE)
