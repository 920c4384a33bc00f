"""Runs that keep features or leave out guidance, against a loop that is written out."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.parity_cases.compilation import jit_for_few_calls
from hotshot_jax.conditioning.control.residuals import make_control
from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.errors import UsageError
from hotshot_jax.media.pixels import to_uint8
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.pipelines.memory import estimate_memory
from hotshot_jax.pipelines.start import StartInput
from hotshot_jax.sampling.windows import ContextConfig
from tests.tiny_controlnet import write_tiny_controlnet

STEPS, SCALE = 6, 7.0
SIZE: dict[str, Any] = {
    "height": 32,
    "width": 32,
    "num_inference_steps": STEPS,
    "guidance_scale": SCALE,
    "video_length": 4,
    "output_type": "latent",
}
LOOP = ContextConfig(4, 2, "looped_uniform", closed=True)
# float32, programs of other shapes, over six steps.
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def pipeline(tiny_checkpoint: Path, tmp_path_factory: Any) -> HotshotXLPipeline:
    net = write_tiny_controlnet(tmp_path_factory.mktemp("net") / "net", 3)
    return HotshotXLPipeline.from_pretrained(
        str(tiny_checkpoint), precision="f32", scheduler="ddim", controlnets=[str(net)]
    )


def given(pipeline: HotshotXLPipeline, frames: int) -> dict[str, Any]:
    config, random = pipeline.components.unet.config, np.random.default_rng(0)
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    shapes = {
        "prompt_embeds": (1, 7, config.cross_attention_dim),
        "pooled_prompt_embeds": (1, pooled),
        "latents": (1, frames, 4, 4, 4),
    }
    shapes |= {f"negative_{name}": shape for name, shape in shapes.items() if name != "latents"}
    return {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def made(pipeline: HotshotXLPipeline, **options: Any) -> np.ndarray:
    options = SIZE | {"controls": idle(options.get("video_length", 4))} | options
    return np.asarray(pipeline(**given(pipeline, options["video_length"]), **options).videos)


def idle(frames: int) -> list[ControlInput]:
    """The ControlNet, without effect."""
    return [ControlInput(np.zeros((frames, 32, 32, 3), np.uint8), ControlWindow(scale=0.0))]


@jit_for_few_calls()
def predict(
    unet: Any, net: Any, x: Any, timestep: Any, text: Any, pooled: Any, frames: Any, kept: Any,
    motion: Any,
) -> Any:  # fmt: skip
    sizes = jnp.asarray([[32.0, 32, 0, 0, 32, 32]])
    residuals = None
    if frames is not None:
        told = make_control(net, text, [frames])
        residuals = net(
            x, timestep, told.text, pooled, sizes, told.condition, conditioning_scale=0.9
        )
    return unet.with_features(
        x, timestep, text, pooled, sizes,
        features=kept, residuals=residuals, motion_scale=motion,
    )  # fmt: skip


def written_out(
    pipeline: HotshotXLPipeline,
    full: Sequence[int],
    *,
    frames: int = 4,
    context: ContextConfig | None = None,
    unguided: Sequence[int] = (),
    control: np.ndarray | None = None,
    motion_scale: float | None = None,
) -> np.ndarray:
    """The run, window by window and half by half, with the whole ControlNet in every step."""
    inputs = given(pipeline, frames)
    scheduler = pipeline.scheduler
    schedule = scheduler.schedule(STEPS)
    blocks = 2 * len(pipeline.components.unet.config.block_out_channels)
    motion = None if motion_scale is None else jnp.full((1, 1, blocks), motion_scale)

    x, solver = jnp.asarray(inputs["latents"]) * schedule.init_noise_sigma, ()
    features: dict[Any, Any] = {}
    source = 0
    for call in range(STEPS):
        row, timestep = schedule.row(call), jnp.float32(schedule.timesteps[call])
        source = call if call in full else source
        windows = [tuple(range(frames))]
        if context is not None:
            windows = context.windows(frames, source)
        weights = [np.full(len(window), 1.0) for window in windows]
        if context is not None:
            weights = context.weights(windows, frames)
        halves = []
        for half in ("", "negative_")[: 1 if call in unguided else 2]:
            joined = jnp.zeros_like(x)
            for window, weight in zip(windows, weights, strict=True):
                key, at = (half, window), np.array(window)
                predicted, features[key] = predict(
                    pipeline.components.unet,
                    pipeline.components.controlnets[0],
                    scheduler.scale_model_input(row, x)[:, at],
                    timestep,
                    inputs[f"{half}prompt_embeds"],
                    inputs[f"{half}pooled_prompt_embeds"],
                    None if control is None else jnp.asarray(control[at][None]) / 255,
                    None if call in full else features[key],
                    motion,
                )
                joined = joined.at[:, at].add(predicted * weight[:, None, None, None])
            halves.append(joined)
        prediction = halves[0]
        if len(halves) > 1:
            prediction = halves[1] + SCALE * (halves[0] - halves[1])
        x, solver = scheduler.step(row, solver, prediction, x)
    return np.asarray(x)


CONTROL = np.random.default_rng(5).integers(0, 256, (4, 32, 32, 3), np.uint8)
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "every third": ({"cache_interval": 3}, {"full": (0, 3)}),
    "a list, and less motion": (
        {"cache_interval": [0, 1, 4], "motion_scale": 0.5},
        {"full": (0, 1, 4), "motion_scale": 0.5},
    ),
    "guidance at first": (
        {"guidance_interval": (0.0, 0.5)},
        {"full": range(STEPS), "unguided": (3, 4, 5)},
    ),
    "guidance in the middle, and every second": (
        {"guidance_interval": (0.2, 0.5), "cache_interval": 2},
        # Step 1 begins guidance, step 3 ends it.
        {"full": (0, 1, 2, 3, 4), "unguided": (0, 3, 4, 5)},
    ),
    "windows of a loop": (
        {"cache_interval": 2, "video_length": 6, "context": LOOP},
        {"full": (0, 2, 4), "frames": 6, "context": LOOP},
    ),
    "a loop of one window, without guidance at last": (
        {"cache_interval": 3, "context": LOOP, "guidance_interval": (0.0, 0.5)},
        {"full": (0, 3), "context": LOOP, "unguided": (3, 4, 5)},
    ),
    "a ControlNet": (
        {"cache_interval": 3, "controls": [ControlInput(CONTROL, ControlWindow(scale=0.9))]},
        {"full": (0, 3), "control": CONTROL},
    ),
    "a ControlNet without guidance at last": (
        {
            "guidance_interval": (0.0, 0.5),
            "controls": [ControlInput(CONTROL, ControlWindow(scale=0.9))],
        },
        {"full": range(STEPS), "unguided": (3, 4, 5), "control": CONTROL},
    ),
}


FAST = ("guidance in the middle, and every second", "windows of a loop", "a ControlNet")


@pytest.mark.parametrize(
    "name",
    [name if name in FAST else pytest.param(name, marks=pytest.mark.slow) for name in CASES],
)
def test_runs_are_those_that_are_written_out(pipeline: HotshotXLPipeline, name: str) -> None:
    options, reference = CASES[name]
    expected = written_out(pipeline, **reference)
    got = made(pipeline, **options)
    np.testing.assert_allclose(got, expected, atol=TOLERANCE * np.abs(expected).max())


def test_neutral_values_change_nothing(pipeline: HotshotXLPipeline) -> None:
    plain = made(pipeline)
    programs = len(pipeline.runtime._programs)
    neutral: list[dict[str, Any]] = [
        {"cache_interval": 1},
        {"cache_interval": range(STEPS)},
        {"guidance_interval": (0.0, 1.0)},
        {"guidance_interval": [0, 1]},
    ]
    for options in neutral:
        np.testing.assert_array_equal(made(pipeline, **options), plain, str(options))
    assert len(pipeline.runtime._programs) == programs


@pytest.mark.slow
def test_windows_at_once_keep_the_same(pipeline: HotshotXLPipeline) -> None:
    options: dict[str, Any] = {
        "video_length": 6, "context": LOOP, "cache_interval": 2, "guidance_interval": (0.0, 0.7),
        "num_videos_per_prompt": 2, "latents": None,
    }  # fmt: skip
    inputs = given(pipeline, 6) | SIZE | {"controls": idle(6)} | options
    one_by_one = np.asarray(pipeline(**inputs).videos)
    pipeline.context_batch = 3
    together = np.asarray(pipeline(**inputs).videos)
    pipeline.context_batch = None
    np.testing.assert_allclose(together, one_by_one, atol=2e-4 * np.abs(one_by_one).max())


@pytest.fixture
def calls(pipeline: HotshotXLPipeline) -> Iterator[list[Any]]:
    """Shapes of the batch and whether features were given, by traced program."""
    seen: list[Any] = []

    def watch(predict: Any) -> Any:
        def watched(latents: Any, step: Any, conditioning: Any, cache: Any) -> Any:
            seen.append((latents.shape[0], bool(jax.tree.leaves(cache))))
            return predict(latents, step, conditioning, cache)

        return watched

    pipeline.wrap_predictor = watch
    yield seen
    pipeline.wrap_predictor = None


@pytest.mark.slow
def test_each_kind_of_step_has_one_program(pipeline: HotshotXLPipeline, calls: list[Any]) -> None:
    made(pipeline, cache_interval=2, guidance_interval=(0.0, 0.5))
    assert set(calls) == {(2, False), (2, True), (1, False), (1, True)}
    # Known by the program, not by the step: only those that keep features are traced for them.
    assert len(calls) <= 6


@pytest.mark.slow
def test_a_start_and_key_frames_of_text_go_with_both(pipeline: HotshotXLPipeline) -> None:
    clip = to_uint8(np.random.default_rng(1).random((4, 32, 32, 3)).astype(np.float32))
    both = {"cache_interval": 2, "guidance_interval": (0.0, 0.8)}
    options: dict[str, Any] = SIZE | {
        "controls": idle(4),
        "start": StartInput(video=clip, strength=0.6),
        "guidance_scale": {0: 5.0, 3: 8.0},
        "guidance_rescale": 0.5,
        "motion_scale": {"up1": {0: 1.0, 3: 0.5}},
    }
    prompts = {0: "a fox", 3: "a whale"}
    plain = np.asarray(pipeline(prompts, **options).videos)
    fewer = np.asarray(pipeline(prompts, **options, **both).videos)
    assert np.isfinite(fewer).all()
    assert np.abs(fewer - plain).max() > 1e-3


@pytest.mark.slow
def test_a_text_that_changes_is_seen_at_once(pipeline: HotshotXLPipeline) -> None:
    options = SIZE | {"controls": idle(4)}
    changing = "a [fox:whale:0.5]"
    once = np.asarray(pipeline(changing, **options, cache_interval=STEPS).videos)
    again = np.asarray(pipeline(changing, **options, cache_interval=[0, 3]).videos)
    np.testing.assert_array_equal(once, again)


@pytest.mark.slow
def test_two_calls_of_a_step_keep_the_same(
    pipeline: HotshotXLPipeline, caplog: pytest.LogCaptureFixture
) -> None:
    heun = HotshotXLPipeline(
        dataclasses.replace(pipeline.components, controlnets=()),
        precision=pipeline.precision,
        scheduler="heun",
    )
    inputs = given(heun, 4) | SIZE
    plain = np.asarray(heun(**inputs).videos)
    np.testing.assert_array_equal(heun(**inputs, cache_interval=range(STEPS)).videos, plain)
    fewer = np.asarray(heun(**inputs, cache_interval=2, guidance_interval=(0.1, 0.11)).videos)
    assert np.isfinite(fewer).all()
    assert "There is no guidance: none of the 11" in caplog.text


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"cache_interval": 0}, "`cache_interval` is 0"),
        ({"cache_interval": [0, STEPS]}, f"names step {STEPS}"),
        ({"guidance_interval": (1.0, 0.0)}, "`guidance_interval` goes from 1 to 0"),
    ],
)
def test_what_cannot_be_is_refused(
    pipeline: HotshotXLPipeline, option: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        made(pipeline, **option)


@pytest.mark.slow
def test_a_predictor_that_calls_another_twice_keeps_both(pipeline: HotshotXLPipeline) -> None:
    def in_two_halves(predict: Any) -> Any:
        def halves(latents: Any, step: Any, conditioning: Any, cache: Any) -> Any:
            parts, kept = [], []
            for half, known in zip(((0, 1), (2, 3)), cache or [(), ()], strict=True):
                at = jnp.array(half)
                part, left = predict(latents[:, at], step, conditioning.at_frames(at), known)
                parts.append(part)
                kept.append(left)
            return jnp.concatenate(parts, axis=1), kept

        return halves

    pipeline.wrap_predictor = in_two_halves
    got = made(pipeline, cache_interval=3, guidance_scale=1.0)
    pipeline.wrap_predictor = None
    # Windows without overlap are the same.
    expected = made(
        pipeline, cache_interval=3, guidance_scale=1.0, context=ContextConfig(2, 0, "batched")
    )
    np.testing.assert_allclose(got, expected, atol=TOLERANCE * np.abs(expected).max())


def test_the_memory_estimate_has_what_is_kept(pipeline: HotshotXLPipeline) -> None:
    def denoising(**options: Any) -> int:
        return estimate_memory(pipeline, height=32, width=32, frames=4, **options).denoising

    channels = pipeline.components.unet.config.block_out_channels[0]
    kept = 6 * 4 * 4 * channels * 4
    assert denoising(guided=False, kept_frames=6) - denoising(guided=False) == kept
    assert denoising(kept_frames=6) - denoising() == 2 * kept
