import dataclasses
import zlib
from collections import Counter

import numpy as np
import pytest

from hotshot_jax.data import shapes
from hotshot_jax.errors import UsageError


def trajectory(prompt: str, seed: int, width: int = 128, height: int = 128) -> shapes.Trajectory:
    rng = np.random.default_rng([seed, zlib.crc32(prompt.encode())])
    return shapes._trajectory(shapes.parse_prompt(prompt).motion, rng, 8, width, height, "any")


def test_the_grammar_gives_every_prompt_once_in_the_documented_order() -> None:
    prompts = shapes.all_prompts()
    # 8 colours, 4 backgrounds, and 5 x 8 pairs of shape and motion but for the spinning circle.
    assert len(prompts) == len(set(prompts)) == 8 * 4 * 39
    assert prompts[0] == "a red circle moving left on a black background"
    assert prompts[-1] == "a white cross standing still on a teal background"
    assert not any("circle spinning" in prompt for prompt in prompts)
    assert list(shapes.COLOURS) == "red green blue yellow orange purple pink white".split()
    assert list(shapes.BACKGROUNDS) == "black gray brown teal".split()


@pytest.mark.parametrize(
    ("prompt", "held_out"),
    [
        ("a red circle moving left on a black background", True),  # 0 + 0 + 0
        ("a red circle moving right on a black background", False),  # 0 + 0 + 1
        ("a blue star growing on a teal background", False),  # 2 + 3 + 4
        ("a green cross growing on a gray background", False),  # 1 + 4 + 4
        ("a blue cross growing on a gray background", True),  # 2 + 4 + 4
        ("a white triangle spinning on a brown background", True),  # 7 + 2 + 6
    ],
)
def test_held_out_prompts_are_those_of_the_rule(prompt: str, held_out: bool) -> None:
    assert shapes.is_held_out(prompt) is held_out


def test_splits_part_the_prompts() -> None:
    train, held_out = shapes.split_prompts("train"), shapes.split_prompts("held_out")
    assert sorted(train + held_out) == sorted(shapes.all_prompts())
    assert len(held_out) == 252
    source = shapes.ShapesSource(length=3000, split="train")
    assert not any(shapes.is_held_out(source.prompt(i)) for i in range(0, 3000, 7))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a red circle",
        "a red circle spinning on a black background",
        "a cat on a black background",
    ],
)
def test_other_prompts_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="shapes data set"):
        shapes.render(text, 0)


def test_a_clip_is_a_function_of_prompt_and_seed() -> None:
    prompt = "a pink star spinning on a teal background"
    clip = shapes.render(prompt, 5)
    assert clip.shape == (8, 128, 128, 3) and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, shapes.render(prompt, 5))
    assert (clip != shapes.render(prompt, 6)).any()
    # Guards against a change of the drawing that would silently change a published data set. Not
    # bit for bit: the last bit of a sine depends on the processor.
    np.testing.assert_allclose(shapes.render(prompt, 5, size=32).mean((0, 1, 2)), MEANS, atol=0.02)


MEANS = (33.529, 121.849, 128.019)


@pytest.mark.parametrize("size", [(96, 96), (192, 80), (80, 192)])
def test_motions_keep_the_promised_minima_and_stay_in_the_frame(size: tuple[int, int]) -> None:
    width, height = size
    for prompt in shapes.all_prompts()[::4]:
        path = trajectory(prompt, 3, *size)
        motion = shapes.parse_prompt(prompt).motion
        travel_x = path.centre_x[-1] - path.centre_x[0]
        travel_y = path.centre_y[-1] - path.centre_y[0]
        growth = path.radius[-1] / path.radius[0]
        turn = abs(np.rad2deg(path.angle[-1] - path.angle[0]))
        still = {"travel_x": travel_x, "travel_y": travel_y, "growth": growth - 1, "turn": turn}
        if motion.startswith("moving"):
            axis = "travel_x" if motion.endswith(("left", "right")) else "travel_y"
            sign = 1 if motion.endswith(("right", "down")) else -1
            assert sign * still.pop(axis) >= 0.2
        elif motion in ("growing", "shrinking"):
            still.pop("growth")
            assert (growth if motion == "growing" else 1 / growth) >= 1.5
        elif motion == "spinning":
            assert still.pop("turn") >= 60
        assert not any(still.values())
        reach = path.radius * shapes._REACH * min(size)
        assert (path.centre_x * width - reach).min() >= 0
        assert (path.centre_x * width + reach).max() <= width
        assert (path.centre_y * height - reach).min() >= 0
        assert (path.centre_y * height + reach).max() <= height


def test_drawing_agrees_between_resolutions() -> None:
    # An anti-aliased edge at 64 pixels is the mean of the same edge at 256, but at the tips, where
    # the distance to the outline says less about the area of a pixel that is covered.
    for shape in shapes.SHAPES:
        prompt = f"a white {shape} growing on a black background"
        fine = shapes.render(prompt, 2, size=256).astype(np.float64)
        coarse = fine.reshape(8, 64, 4, 64, 4, 3).mean((2, 4))
        difference = np.abs(coarse - shapes.render(prompt, 2, size=64))
        assert difference.mean() < 0.3
        assert difference.max() < 100


def test_one_frame_is_any_moment_of_the_clip() -> None:
    prompt = "a white circle growing on a black background"
    shares = [(shapes.render(prompt, seed, 64, frames=1) > 128).mean() for seed in range(40)]
    # The area covered at the end of a growing clip is far larger than any at its beginning.
    assert min(shares) < 0.1 < 0.25 < max(shares)


def test_edges_are_anti_aliased() -> None:
    clip = shapes.render("a white circle standing still on a black background", 1, size=64)
    middling = (clip[0, ..., 0] > 40) & (clip[0, ..., 0] < 200)
    assert 20 < middling.sum() < 200


def test_source_shows_every_prompt_equally_often_and_never_the_same_clip() -> None:
    source = shapes.ShapesSource(length=2 * 996, seed=4, size=16)
    prompts = [source.prompt(i) for i in range(len(source))]
    assert sorted(prompts[:996]) == sorted(prompts[996:]) == sorted(shapes.split_prompts("train"))
    assert prompts[:996] != prompts[996:]
    first = prompts[0]
    again = prompts.index(first, 1)
    assert (source[0]["frames"] != source[again]["frames"]).any()
    np.testing.assert_array_equal(
        source[again]["frames"], dataclasses.replace(source)[again]["frames"]
    )
    with pytest.raises(IndexError):
        source[len(source)]


def test_prompts_of_spinning_shapes_can_come_more_often() -> None:
    prompts = shapes.split_prompts("train")
    spinning = {prompt for prompt in prompts if "spinning" in prompt}
    source = shapes.ShapesSource(length=len(prompts) + 2 * len(spinning), spins=3)
    shown = Counter(source.prompt(i) for i in range(len(source)))
    assert shown == {prompt: 3 if prompt in spinning else 1 for prompt in prompts}


@pytest.mark.parametrize(("moment", "mean"), [("any", 1 / 2), ("late", 2 / 3), ("last", 8 / 9)])
def test_late_moments_are_rather_near_the_end_of_a_clip(moment: str, mean: float) -> None:
    # The radius of a growing shape tells when its single frame was taken.
    rng = np.random.default_rng(0)
    radii = [shapes._trajectory("growing", rng, 1, 128, 128, moment).radius[0] for _ in range(2000)]
    first, last = (
        np.mean(shapes._SMALL_RADIUS),
        np.mean(shapes._SMALL_RADIUS) * np.mean(shapes._GROWTH),
    )
    # 2000 of them have a mean within a hundredth of the range with room to spare.
    assert np.mean(radii) == pytest.approx(first + (last - first) * mean, abs=0.02 * (last - first))


def test_shapes_of_any_paint_are_of_any_colour_half_of_the_time() -> None:
    prompt = "a red square growing on a black background"
    clips = [(shapes.render(prompt, seed, 16, 1), seed) for seed in range(40)]
    painted = [(shapes.render(prompt, seed, 16, 1, paint="any"), clip) for clip, seed in clips]
    changed = [(a, b) for a, b in painted if not np.array_equal(a, b)]
    assert 10 < len(changed) < 30
    # Shapes differ, and backgrounds do not.
    assert all((a[0, 0, 0] == b[0, 0, 0]).all() for a, b in painted)
    with pytest.raises(UsageError, match="named, any"):
        shapes.render(prompt, 0, frames=1, paint="blue")


@pytest.mark.parametrize(
    ("motion", "mirrored", "centre"),
    [("moving left", "moving right", "centre_x"), ("moving up", "moving down", "centre_y")],
)
def test_late_moments_lie_where_the_motion_goes(motion: str, mirrored: str, centre: str) -> None:
    def mean(name: str) -> float:
        rng = np.random.default_rng(0)
        paths = (shapes._trajectory(name, rng, 1, 128, 128, "last") for _ in range(500))
        return float(np.mean([getattr(path, centre) for path in paths]))

    # Half of the least travel, 0.26, and more.
    assert mean(motion) < 0.5 - 0.12 < 0.5 + 0.12 < mean(mirrored)


def test_an_unknown_moment_is_refused() -> None:
    with pytest.raises(UsageError, match="any, late, last"):
        shapes.render(shapes.all_prompts()[0], 0, frames=1, moment="early")


def test_a_new_colour_is_a_split_of_its_own_in_which_nothing_held_out_is_seen() -> None:
    prompts = shapes.split_prompts("cyan")
    assert prompts and not set(prompts) & set(shapes.all_prompts())
    assert not any(shapes.is_held_out(prompt) for prompt in prompts)
    others = shapes.split_prompts("cyan_held_out")
    assert all(shapes.is_held_out(prompt) for prompt in others)
    assert len(set(prompts) | set(others)) == len(prompts) + len(others) == 4 * 39
    source = shapes.ShapesSource(length=1, split="cyan", size=32)
    frames = source[0]["frames"]
    nearness = np.abs(frames.astype(int) - shapes.NEW_COLOURS["cyan"]).max(axis=-1)
    assert (nearness < 25).any(axis=(1, 2)).all()


def test_brief_prompts_say_colours_alone() -> None:
    brief = shapes.ShapesSource(length=20, says="colours", size=16)
    whole = shapes.ShapesSource(length=20, size=16)
    for index in range(20):
        parts = shapes.parse_prompt(whole[index]["prompt"])
        assert (
            brief[index]["prompt"] == f"a {parts.colour} shape on a {parts.background} background"
        )
        np.testing.assert_array_equal(brief[index]["frames"], whole[index]["frames"])
