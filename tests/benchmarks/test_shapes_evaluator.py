import io
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from scipy import ndimage

from benchmarks.toy import shapes_evaluator
from hotshot_jax.data import shapes

Clip = npt.NDArray[np.uint8]


def random_prompts(count: int) -> list[str]:
    prompts = shapes.all_prompts()
    rng = np.random.default_rng(11)
    return [prompts[i] for i in rng.integers(len(prompts), size=count)]


def as_gif(clip: Clip) -> Clip:
    """Through a GIF with one palette of 64 colours, as a careless writer makes them."""
    images = [Image.fromarray(frame).quantize(64) for frame in clip]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=120)
    file.seek(0)
    with Image.open(file) as image:
        frames = [np.asarray(image.seek(i) or image.convert("RGB")) for i in range(image.n_frames)]
    return np.stack(frames)


def blurred_and_noisy(clip: Clip) -> Clip:
    soft = ndimage.gaussian_filter(clip.astype(np.float64), (0, 1.0, 1.0, 0))
    noisy = soft + np.random.default_rng(0).normal(0, 8, clip.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def accuracy(prompts: list[str], size: int, change=lambda clip: clip) -> dict[str, float]:
    marks = [
        shapes_evaluator.score(
            prompt, shapes_evaluator.measure(change(shapes.render(prompt, index, size)))
        )
        for index, prompt in enumerate(prompts)
    ]
    return {name: float(np.mean([mark[name] for mark in marks])) for name in marks[0]}


@pytest.mark.parametrize("count", [100, pytest.param(500, marks=pytest.mark.slow)])
def test_real_clips_are_measured_right(count: int) -> None:
    found = accuracy(random_prompts(count), 96)
    assert min(found.values()) >= 0.99, found


def test_a_new_colour_is_told_where_it_is_asked_about() -> None:
    prompts = shapes.split_prompts("cyan")[::6]
    told, untold = [], []
    for index, prompt in enumerate(prompts):
        clip = shapes.render(prompt, index, 64)
        told.append(shapes_evaluator.score(prompt, shapes_evaluator.measure(clip, ["cyan"])))
        untold.append(shapes_evaluator.measure(clip))
    assert {mark["all"] for mark in told} == {True}
    assert not {found.colour for found in untold} - set(shapes_evaluator.COLOUR_WORDS)
    # The eight words mean what they did: none of their shapes is taken for the new colour.
    for index, prompt in enumerate(random_prompts(16)):
        clip = shapes.render(prompt, index, 64)
        assert shapes_evaluator.measure(clip, ["cyan"]) == shapes_evaluator.measure(clip), prompt


@pytest.mark.parametrize(("size", "count"), [(64, 40), (128, 10)])
def test_gif_palettes_blur_and_noise_do_not_matter(size: int, count: int) -> None:
    found = accuracy(random_prompts(count), size, lambda clip: as_gif(blurred_and_noisy(clip)))
    assert min(found.values()) >= 0.95, found


def test_a_wrong_clip_is_not_taken_for_right() -> None:
    prompt = "a red square moving right on a black background"
    clip = shapes.render(prompt, 0, 64)
    assert shapes_evaluator.score(prompt, shapes_evaluator.measure(clip))["all"]
    still = shapes_evaluator.measure(np.repeat(clip[:1], 8, axis=0))
    assert still.motion == "standing still"
    assert shapes_evaluator.measure(clip[::-1]).motion == "moving left"
    assert shapes_evaluator.measure(clip[:, ::-1]).motion == "moving right"
    assert shapes_evaluator.measure(clip.transpose(0, 2, 1, 3)).motion == "moving down"
    for word, wrong in [("red", "pink"), ("square", "cross"), ("black", "gray")]:
        other = shapes.render(prompt.replace(word, wrong), 0, 64)
        marks = shapes_evaluator.score(prompt, shapes_evaluator.measure(other))
        assert list(marks.values()).count(False) == 2  # the attribute itself, and all at once


@pytest.mark.parametrize("level", [0, 128])
def test_nothing_is_seen_in_an_empty_clip_or_noise_but_the_background(level: int) -> None:
    rng = np.random.default_rng(0)
    noise = np.clip(rng.normal(level, 4, (8, 64, 64, 3)), 0, 255).astype(np.uint8)
    found = shapes_evaluator.measure(noise)
    assert (found.shape, found.colour, found.motion) == (None, None, None)
    assert found.background == ("gray" if level else "black")


def test_colour_words_are_far_apart() -> None:
    words = shapes_evaluator.COLOUR_WORDS | shapes_evaluator.BACKGROUND_WORDS
    words |= shapes_evaluator.NEW_COLOUR_WORDS
    for first, second in itertools.combinations(words, 2):
        distance = np.linalg.norm(
            shapes_evaluator.lab(words[first]) - shapes_evaluator.lab(words[second])
        )
        assert distance > 25, (first, second)


def test_reads_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = shapes.render("a blue star spinning on a gray background", 1, 64)
    images = [Image.fromarray(frame) for frame in clip]
    path = tmp_path / "clip.gif"
    images[0].save(path, save_all=True, append_images=images[1:], duration=120)
    shapes_evaluator.main([str(path), "--new_colour", "cyan"])
    out = capsys.readouterr().out
    assert '"motion": "spinning"' in out and '"colour": "blue"' in out


def test_unknown_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="not a prompt"):
        shapes_evaluator.score("a bulldog", shapes_evaluator.Measurement(None, None, None, None))
