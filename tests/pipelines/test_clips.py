"""Long clips, loops, texts and numbers that differ by frame, in the pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.sampling.windows import ContextConfig

GOLDEN = Path(__file__).parents[1] / "golden-clips"
# At 16 x 16 the lowest level has one pixel, whose norms turn round-off into signs.
SIZE: dict[str, Any] = {
    "height": 64,
    "width": 32,
    "num_inference_steps": 2,
    "video_length": 4,
    "output_type": "latent",
}


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")


# The others take long to compile; `benchmarks.parity --golden tests/golden-clips` runs all.
@pytest.mark.parametrize(
    "name",
    [
        "clip_loop_n5",
        "clip_travel_windows",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in (
                "clip_loop_n8",
                "clip_loop_windows",
                "clip_travel",
                "clip_travel_loop",
                "clip_windows_looped_flat",
                "clip_windows_looped_stride2",
                "clip_windows_standard_overlap_linear",
                "clip_windows_static_pyramid",
                "clip_windows_static_relative",
            )
        ),
    ],
)
def test_reference(name: str) -> None:
    (case,) = read_cases(GOLDEN, [name])
    results = list(run_case(case))
    assert [result for result in results if result.verdict.fails] == []
    assert any(result.what == "latents_per_step" for result in results)


def latents(pipeline: HotshotXLPipeline, prompt: Any = "a fox", **options: Any) -> np.ndarray:
    return np.asarray(pipeline(prompt, **(SIZE | options)).videos)


def test_neutral_values_change_nothing(pipeline: HotshotXLPipeline) -> None:
    plain = latents(pipeline)
    neutral: list[dict[str, Any]] = [
        {"context": ContextConfig(4, 2)},
        {"context": ContextConfig(9, 0, "standard_uniform", 3, "flat")},
        {"prompt": {0: "a fox"}},
        {"prompt": {3: "a fox"}},
        {"motion_scale": 1.0},
        {"motion_scale": {0: 1.0, 3: 1.0}},
        {"motion_scale": {"down0": 1.0, "all": 1}},
        {"initial_noise": "freenoise"},
        {"loop": False},
        {"context_batch": 3},
    ]
    for options in neutral:
        pipeline.context_batch = options.pop("context_batch", None)
        np.testing.assert_array_equal(latents(pipeline, **options), plain, str(options))
    pipeline.context_batch = None


def test_equal_values_in_all_frames_are_the_plain_run(pipeline: HotshotXLPipeline) -> None:
    plain = latents(pipeline, guidance_scale=7.0)
    equal: list[dict[str, Any]] = [
        {"prompt": {0: "a fox", 2: "a fox"}, "guidance_scale": 7.0},
        {"guidance_scale": {0: 7.0, 3: 7.0}},
        {"negative_prompt": {1: "", 2: ""}, "guidance_scale": 7.0},
    ]
    expected = [plain, plain, latents(pipeline, negative_prompt="", guidance_scale=7.0)]
    for options, wanted in zip(equal, expected, strict=True):
        # float32, products of other shapes.
        np.testing.assert_allclose(latents(pipeline, **options), wanted, atol=1e-5 * plain.max())


def test_what_differs_by_frame_differs(pipeline: HotshotXLPipeline) -> None:
    plain = latents(pipeline)
    for options in (
        {"prompt": {0: "a fox", 3: "a whale"}},
        {"guidance_scale": {0: 5.0, 3: 9.0}},
        {"motion_scale": {0: 1.0, 3: 0.5}},
        {"motion_scale": {"up0": 0.5}},
        {"loop": True, "num_inference_steps": 2},
    ):
        assert np.abs(latents(pipeline, **options) - plain).max() > 1e-3, options


def test_without_motion_frames_are_made_as_without_temporal_layers(
    pipeline: HotshotXLPipeline,
) -> None:
    def without(predict: Any) -> Any:
        import dataclasses

        return dataclasses.replace(predict, enable_temporal_attentions=False)

    still = latents(pipeline, motion_scale=0.0)
    pipeline.wrap_predictor = without
    off = latents(pipeline)
    pipeline.wrap_predictor = None
    np.testing.assert_allclose(still, off, atol=1e-5 * np.abs(off).max())


def test_windows_may_be_made_at_once(pipeline: HotshotXLPipeline) -> None:
    options: dict[str, Any] = {
        "video_length": 6,
        "context": ContextConfig(4, 2, "looped_uniform", closed=True),
        "prompt": {0: "a fox", 3: "a whale"},
    }
    one_by_one = latents(pipeline, **options)
    pipeline.context_batch = 3
    together = latents(pipeline, **options)
    pipeline.context_batch = None
    np.testing.assert_allclose(together, one_by_one, atol=2e-4 * np.abs(one_by_one).max())


def test_a_clip_longer_than_the_positions_is_made_in_windows(pipeline: HotshotXLPipeline) -> None:
    options = {"video_length": 26, "num_inference_steps": 1, "height": 16, "width": 16}
    given = latents(pipeline, **options)
    asked = latents(pipeline, context=ContextConfig(8, 4), **options)
    np.testing.assert_array_equal(given, asked)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"video_length": 1, "loop": True}, "at least 2 frames"),
        ({"video_length": 1025}, "1 to 1024"),
        ({"video_length": 40, "context": ContextConfig(30, 4)}, "`context_length` is 30"),
        ({"prompt": {0: "a", 4: "b"}}, "frames of this clip are 0 to 3"),
        ({"prompt": {-1: "a"}}, "counted from 0"),
        (
            {
                "prompt": None,
                "prompt_embeds": {0: np.zeros((1, 77, 64)), 9: np.zeros((1, 77, 64))},
                "pooled_prompt_embeds": {0: np.zeros((1, 32)), 9: np.zeros((1, 32))},
            },
            "names frame 9",
        ),
        ({"guidance_scale": {0: 5.0, 2: float("nan")}}, "`guidance_scale` is nan"),
        ({"guidance_scale": {0: 5.0, 3: 1.0}}, "goes from 1 to 5"),
        ({"guidance_scale": {0: 5.0, 9: 7.0}}, "names frame 9"),
        ({"motion_scale": -1.0}, "`motion_scale` is -1"),
        ({"motion_scale": {"down9": 1.0}}, "down0"),
        ({"motion_scale": {"down1": float("inf")}}, "`motion_scale of down1` is inf"),
        ({"initial_noise": "blue"}, "freenoise"),
        ({"loop": True, "context": ContextConfig(4, 2)}, "looped_uniform"),
        (
            {"video_length": 50, "context": ContextConfig(23, 16, "standard_uniform", 2)},
            "in no window",
        ),
    ],
)
def test_bad_input(pipeline: HotshotXLPipeline, options: dict[str, Any], message: str) -> None:
    steps = 40 if "no window" in message else 2
    with pytest.raises(UsageError, match=message):
        latents(pipeline, **({"num_inference_steps": steps} | options))
