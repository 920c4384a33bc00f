"""Clips that start from another clip or from pictures, in the pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.parity_cases.case import read_cases
from benchmarks.parity_cases.kinds import run_case
from hotshot_jax.errors import UsageError
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.latents import encode_frames
from hotshot_jax.pipelines.start import StartInput

GOLDEN = Path(__file__).parents[1] / "golden-clips"
SIZE: dict[str, Any] = {"height": 16, "width": 16, "video_length": 4, "num_inference_steps": 3}
SOURCE = np.random.default_rng(0).integers(0, 256, (4, 16, 16, 3), np.uint8)
CLEAN = np.random.default_rng(1).standard_normal((1, 4, 2, 2, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")


def latents(pipeline: HotshotXLPipeline, **start: Any) -> np.ndarray:
    given = StartInput(**start)
    return np.asarray(pipeline("a fox", start=given, output_type="latent", **SIZE).videos)


# The others take long to compile; `benchmarks.parity --golden tests/golden-clips` runs all.
@pytest.mark.parametrize(
    "name",
    [
        "video_to_video_steps",
        "clip_known_frames_mask",
        *(
            pytest.param(f"clip_{name}", marks=pytest.mark.slow)
            for name in (
                "known_frames_first",
                "known_frames_first_last",
                "video_to_video_ddim",
                "video_to_video_euler",
                "video_to_video_euler_ancestral",
            )
        ),
    ],
)
def test_reference(name: str) -> None:
    (case,) = read_cases(GOLDEN, [name])
    results = list(run_case(case))
    assert [result for result in results if result.verdict.fails] == []
    assert any(result.error is not None for result in results)


def test_a_mask_of_ones_changes_nothing_and_one_of_zeros_keeps_everything(
    pipeline: HotshotXLPipeline,
) -> None:
    ones, zeros = np.ones((4, 2, 2)), np.zeros((4, 2, 2))
    plain = np.asarray(pipeline("a fox", output_type="latent", **SIZE).videos)
    started = latents(pipeline, video=CLEAN, strength=0.7)
    np.testing.assert_array_equal(latents(pipeline, video=CLEAN, strength=0.7, mask=ones), started)
    np.testing.assert_array_equal(latents(pipeline, video=CLEAN, mask=ones), plain)
    assert np.abs(latents(pipeline, video=CLEAN) - plain).max() > 1e-3
    for strength in (1.0, 0.7):
        kept = latents(pipeline, video=CLEAN, strength=strength, mask=zeros)
        np.testing.assert_array_equal(kept, CLEAN)


def test_known_frames_stay_and_the_others_are_made(pipeline: HotshotXLPipeline) -> None:
    plain = np.asarray(pipeline("a fox", output_type="latent", **SIZE).videos)
    made = latents(pipeline, known_frames={3: CLEAN[0, 3], 0: CLEAN[0, 0]})
    np.testing.assert_array_equal(made[:, [0, 3]], CLEAN[:, [0, 3]])
    assert np.abs(made[:, 1:3] - plain[:, 1:3]).max() > 1e-3
    # As a mask over a clip it is the same.
    mask = np.ones((4, 2, 2))
    mask[[0, 3]] = 0
    np.testing.assert_array_equal(latents(pipeline, video=CLEAN, mask=mask), made)


def test_pictures_are_encoded_with_noise_of_the_seed(pipeline: HotshotXLPipeline) -> None:
    first = latents(pipeline, known_frames={0: SOURCE[0]})
    np.testing.assert_array_equal(latents(pipeline, known_frames={0: SOURCE[0]}), first)
    output = pipeline("a fox", start=StartInput(known_frames={0: SOURCE[0]}), **SIZE).videos
    assert output.shape == (1, 4, 16, 16, 3)


def test_in_low_vram_mode_one_model_at_a_time_is_on_the_device(
    pipeline: HotshotXLPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = pipeline.runtime
    seen: list[set[str]] = []
    model = runtime.model

    def watched(name: str) -> Any:
        found = model(name)
        seen.append(set(runtime._arrays))
        return found

    monkeypatch.setattr(runtime, "low_vram_mode", True)
    monkeypatch.setattr(runtime, "_arrays", {})
    monkeypatch.setattr(runtime, "model", watched)
    latents(pipeline, video=SOURCE, strength=0.5)
    encoders = {"text_encoder", "text_encoder_2"}
    assert {"vae"} in seen and {"unet"} in seen
    assert all(len(each) == 1 or each <= encoders for each in seen), seen


def test_a_known_frame_stands_for_that_of_the_clip_and_is_encoded_once(
    pipeline: HotshotXLPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def encode(runtime: Any, frames: np.ndarray, noise: np.ndarray, **options: Any) -> np.ndarray:
        encoded.append(frames)
        return encode_frames(runtime, frames, noise, **options)

    monkeypatch.setattr("hotshot_jax.pipelines.start.encode_frames", encode)
    known = {0: CLEAN[0, 0], 3: CLEAN[0, 3]}
    made = latents(pipeline, video=SOURCE, strength=0.7, known_frames=known)
    np.testing.assert_array_equal(made[:, [0, 3]], CLEAN[:, [0, 3]])
    alike = {0: SOURCE[3], 3: SOURCE[2]}
    latents(pipeline, video=SOURCE, strength=0.7, known_frames=alike)
    np.testing.assert_array_equal(encoded[0], SOURCE[1:3])
    np.testing.assert_array_equal(encoded[1], SOURCE[[3, 1, 2, 2]])
    assert len(encoded) == 2


def test_the_first_frame_is_seen_by_all_where_that_is_asked(pipeline: HotshotXLPipeline) -> None:
    known = {0: CLEAN[0, 0]}
    plain = latents(pipeline, known_frames=known)
    seen = latents(pipeline, known_frames=known, first_frame_attention=True)
    np.testing.assert_array_equal(latents(pipeline, known_frames=known), plain)
    np.testing.assert_array_equal(seen[:, 0], CLEAN[:, 0])
    assert np.isfinite(seen).all() and np.abs(seen - plain)[:, 1:].max() > 1e-3
    # Also in a clip of which nothing is kept.
    anew = {"video": CLEAN, "mask": np.ones((2, 2))}
    seen = latents(pipeline, **anew, first_frame_attention=True)
    assert np.abs(seen - latents(pipeline, **anew)).max() > 1e-3


def test_videos_of_several_seeds_are_what_each_gives_alone(pipeline: HotshotXLPipeline) -> None:
    # At 16 x 16 signs of round-off would be carried on.
    source = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    size = SIZE | {"height": 64, "width": 64, "video_length": 2, "num_inference_steps": 2}
    size |= {"output_type": "latent", "start": StartInput(source, 0.5)}
    together = np.asarray(pipeline(["a fox", "a fox"], seed=[1, 2], **size).videos)
    for index in range(2):
        alone = np.asarray(pipeline("a fox", seed=index + 1, **size).videos)
        # float32, batches of other sizes.
        np.testing.assert_allclose(together[index], alone[0], atol=1e-4 * np.abs(alone).max())


@pytest.mark.parametrize(
    ("start", "message"),
    [
        ({"strength": 0.5}, "`strength` needs `video`"),
        ({"mask": np.ones((2, 2))}, "`mask` needs `video`"),
        ({"first_frame_attention": True}, "needs `video` or `known_frames`"),
        ({"video": CLEAN, "strength": 0.0}, "above 0, to 1"),
        ({"video": CLEAN, "strength": 1.5}, "above 0, to 1"),
        ({"video": CLEAN, "strength": float("nan")}, "above 0, to 1"),
        ({"video": CLEAN, "strength": 0.3}, "of 3 steps none is left"),
        ({"video": CLEAN[:, :3]}, "expected uint8 pictures or latents"),
        ({"video": SOURCE[:3]}, "`video` has the shape"),
        ({"known_frames": {4: CLEAN[0, 0]}}, "names frame 4"),
        ({"known_frames": {0: SOURCE[0], 1: SOURCE[0, :8]}}, "different sizes"),
        ({"video": CLEAN, "mask": np.ones((3, 2, 2))}, "`mask` has the shape"),
        ({"video": CLEAN, "mask": np.full((2, 2), 2.0)}, "outside of 0 to 1"),
        ({"video": CLEAN, "mask": 1.0}, "`mask` has the shape"),
    ],
)
def test_bad_input(pipeline: HotshotXLPipeline, start: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        latents(pipeline, **start)


def test_a_mask_costs_next_to_nothing(tiny_checkpoint: Path) -> None:
    pipeline = HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")
    programs = pipeline.runtime._programs._compiled

    def steps() -> list[float]:
        return [
            program.cost_analysis()["flops"]
            for key, program in programs.items()
            if key[0] == "denoising step"
        ]

    latents(pipeline)
    plain = steps()
    latents(pipeline, known_frames={0: CLEAN[0, 0]})
    both = steps()
    # One program for a run, as without.
    assert len(plain) == 1 and len(both) == 2
    assert plain[0] < both[1] < 1.02 * plain[0]


@pytest.mark.parametrize("scheduler", ["euler_ancestral", "heun", "dpmpp_2m"])
def test_steps_are_made_again_where_something_is_kept(
    tiny_checkpoint: Path, scheduler: str
) -> None:
    pipeline = HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint), precision="f32", scheduler=scheduler
    )
    told: list[int] = []

    def tell(pipeline: Any, call: int, timestep: float, given: Any) -> Any:
        told.append(call)
        return given

    def made(**start: Any) -> np.ndarray:
        told.clear()
        given = StartInput(**start)
        call = SIZE | {"start": given, "output_type": "latent", "callback_on_step_end": tell}
        return np.asarray(pipeline("a fox", **call).videos)

    once = made(known_frames={0: CLEAN[0, 0]})
    calls = len(told)
    programs = len(pipeline.runtime._programs)
    np.testing.assert_array_equal(made(known_frames={0: CLEAN[0, 0]}, repaint=1), once)
    again = made(known_frames={0: CLEAN[0, 0]}, repaint=2)
    assert len(told) == 2 * calls
    # That of going back; a step is what it was.
    assert len(pipeline.runtime._programs) == programs + 1
    np.testing.assert_array_equal(again[:, 0], CLEAN[:, 0])
    assert np.isfinite(again).all() and np.abs(again - once)[:, 1:].max() > 1e-3
    # Where nothing is kept, there is nothing to fit to.
    np.testing.assert_array_equal(made(repaint=2), made())
    assert len(told) == calls
