"""ControlNets in the pipeline: scales, windows, several at once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hotshot_jax.conditioning.control.windows import ControlWindow
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel
from hotshot_jax.pipelines import HotshotXLPipeline
from hotshot_jax.pipelines.control import ControlInput
from hotshot_jax.runtime.precision import Precision

CALLS = 4
SIZE: dict[str, Any] = {"height": 16, "width": 16, "num_inference_steps": CALLS}
FRAMES = np.random.default_rng(0).integers(0, 256, (8, 16, 16, 3), np.uint8)


def _controlnet(config: ControlNetConfig, seed: int) -> ControlNetModel:
    generator = np.random.default_rng(seed)
    module = abstract(lambda rngs: ControlNetModel(config, rngs=rngs))
    values = {
        path: jax.device_put(0.2 * generator.standard_normal(leaf.shape, np.float32))
        for path, leaf in flat_parameters(module).items()
    }
    return with_parameters(module, values)


@pytest.fixture(scope="module")
def plain(tiny_checkpoint: Path) -> HotshotXLPipeline:
    return HotshotXLPipeline.from_pretrained(str(tiny_checkpoint), precision="f32")


@pytest.fixture(scope="module")
def controlled(plain: HotshotXLPipeline) -> HotshotXLPipeline:
    """The same models with two ControlNets."""
    config = ControlNetConfig.from_unet(plain.components.unet.config)
    nets = (_controlnet(config, 1), _controlnet(config, 2))
    components = dataclasses.replace(plain.components, controlnets=nets)
    return HotshotXLPipeline(components, precision=Precision.named("f32", "cpu"))


def _latents(
    pipeline: HotshotXLPipeline,
    *windows: ControlWindow,
    prompt: str | list[str] = "a fox",
    replaced: dict[int, np.ndarray] | None = None,
    **options: Any,
) -> np.ndarray:
    """The latents after each step, `[calls, ...]`; those after some calls may be replaced."""
    steps: list[np.ndarray] = []

    def keep(_: Any, step: int, __: float, values: dict[str, jax.Array]) -> dict[str, jax.Array]:
        if replaced is not None and step in replaced:
            values = {"latents": jax.numpy.asarray(replaced[step])}
        steps.append(np.asarray(values["latents"]))
        return values

    controls = [ControlInput(FRAMES, window) for window in windows]
    pipeline(
        prompt,
        controls=controls,
        output_type="latent",
        callback_on_step_end=keep,
        **(SIZE | options),
    )
    return np.stack(steps)


def _with_scheduler(pipeline: HotshotXLPipeline, scheduler: str | None) -> HotshotXLPipeline:
    if scheduler is None:
        return pipeline
    precision = pipeline.precision
    return HotshotXLPipeline(pipeline.components, precision=precision, scheduler=scheduler)


OFF = ControlWindow(0.0)


def test_scale_zero_is_no_controlnet_bit_for_bit(
    plain: HotshotXLPipeline, controlled: HotshotXLPipeline
) -> None:
    np.testing.assert_array_equal(_latents(controlled, OFF, OFF), _latents(plain))


def test_a_controlnet_changes_every_step(
    plain: HotshotXLPipeline, controlled: HotshotXLPipeline
) -> None:
    changed = np.abs(_latents(controlled, ControlWindow(0.7), OFF) - _latents(plain))
    assert (changed.reshape(CALLS, -1).max(axis=1) > 1e-3).all()


def test_a_window_changes_only_its_steps(controlled: HotshotXLPipeline) -> None:
    whole = _latents(controlled, ControlWindow(0.7), OFF)
    half = _latents(controlled, ControlWindow(0.7, 0.0, 0.5), OFF)
    np.testing.assert_array_equal(half[:2], whole[:2])
    assert (half[2:] != whole[2:]).any()


@pytest.mark.parametrize("scheduler", [None, pytest.param("heun", marks=pytest.mark.slow)])
def test_a_run_that_stops_early_is_the_beginning_of_the_whole_one(
    controlled: HotshotXLPipeline, scheduler: str | None
) -> None:
    pipeline = _with_scheduler(controlled, scheduler)
    windows = (ControlWindow(0.7, 0.0, 0.5), OFF)
    whole = _latents(pipeline, *windows)
    part = _latents(pipeline, *windows, denoising_end=0.6)
    assert 1 < len(part) < len(whole)
    np.testing.assert_array_equal(part, whole[: len(part)])


_FOX, _WHALE = {"prompt": "a fox"}, {"prompt": "a whale"}


@pytest.mark.parametrize(
    ("scheduler", "calls_before", "edited", "first", "second"),
    [
        (None, 2, {"prompt": "[a fox:a whale:2]"}, _FOX, _WHALE),
        # Both calls of Heun's step are given the same text.
        ("heun", 4, {"prompt": "a [fox:whale:0.5]", "guess_mode": True}, _FOX, _WHALE),
        (
            None,
            2,
            {"negative_prompt": "[grey:blurry:2]"},
            {"negative_prompt": "grey"},
            {"negative_prompt": "blurry"},
        ),
        pytest.param(
            None,
            2,
            {"prompt": ["[a fox:a whale:0.5]", "snow"], "seed": [1, 2]},
            {"prompt": ["a fox", "snow"]},
            {"prompt": ["a whale", "snow"]},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_an_edited_prompt_is_one_text_and_then_the_other(
    controlled: HotshotXLPipeline,
    scheduler: str | None,
    calls_before: int,
    edited: dict[str, Any],
    first: dict[str, Any],
    second: dict[str, Any],
) -> None:
    pipeline = _with_scheduler(controlled, scheduler)
    windows = (ControlWindow(0.7), ControlWindow(0.4, 0.5))
    whole = _latents(pipeline, *windows, **edited)
    before = _latents(pipeline, *windows, **(edited | first))
    last = calls_before - 1
    after = _latents(pipeline, *windows, **(edited | second), replaced={last: before[last]})
    np.testing.assert_array_equal(whole[:calls_before], before[:calls_before])
    np.testing.assert_array_equal(whole[calls_before:], after[calls_before:])
    assert (whole[calls_before:] != before[calls_before:]).any()


def test_both_controlnets_count(controlled: HotshotXLPipeline) -> None:
    on = ControlWindow(0.7)
    first, second = _latents(controlled, on, OFF), _latents(controlled, OFF, on)
    both = _latents(controlled, on, on)
    for alone in (first, second):
        assert np.abs(both - alone).max() > 1e-3


def test_guess_mode_leaves_the_unconditional_half_alone(controlled: HotshotXLPipeline) -> None:
    on = ControlWindow(0.7)
    assert (
        np.abs(_latents(controlled, on, OFF, guess_mode=True) - _latents(controlled, on, OFF)).max()
        > 1e-3
    )


def test_inputs_have_to_match_the_controlnets(controlled: HotshotXLPipeline) -> None:
    with pytest.raises(UsageError, match="1 control inputs for 2 ControlNets"):
        _latents(controlled, ControlWindow(0.7))


def test_there_has_to_be_a_control_frame_for_each_frame(controlled: HotshotXLPipeline) -> None:
    short = [ControlInput(FRAMES[:5], OFF)] * 2
    with pytest.raises(HotshotError, match="5 control frames for a video of 8"):
        controlled("a fox", controls=short, **SIZE)


def test_a_controlnet_of_another_width_is_refused(plain: HotshotXLPipeline) -> None:
    golden = Path(__file__).parent.parent / "golden" / "models" / "controlnet_tiny.config.json"
    config = ControlNetConfig.from_dict(json.loads(golden.read_text()), "controlnet")
    nets = (_controlnet(config, 1),)
    components = dataclasses.replace(plain.components, controlnets=nets)
    with pytest.raises(HotshotError, match="ControlNet 1"):
        HotshotXLPipeline(components, precision=Precision.named("f32", "cpu"))
