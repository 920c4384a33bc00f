"""ControlNets in the pipeline: scales, windows, several at once."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from hotshot_jax.control.windows import ControlWindow
from hotshot_jax.convert.load import abstract, with_parameters
from hotshot_jax.convert.rules import flat_parameters
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.models.controlnet import ControlNetModel
from hotshot_jax.models.controlnet_config import ControlNetConfig
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


def _latents(pipeline: HotshotXLPipeline, *windows: ControlWindow, **options: Any) -> np.ndarray:
    """The latents after each step, `[calls, ...]`."""
    steps: list[np.ndarray] = []

    def keep(_: Any, __: int, ___: float, values: dict[str, jax.Array]) -> dict[str, jax.Array]:
        steps.append(np.asarray(values["latents"]))
        return values

    controls = [ControlInput(FRAMES, window) for window in windows]
    pipeline(
        "a fox",
        controls=controls,
        output_type="latent",
        callback_on_step_end=keep,
        **(SIZE | options),
    )
    return np.stack(steps)


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


@pytest.mark.parametrize("scheduler", ["euler", "heun"])
def test_a_run_that_stops_early_is_the_beginning_of_the_whole_one(
    controlled: HotshotXLPipeline, scheduler: str
) -> None:
    pipeline = HotshotXLPipeline(
        controlled.components, precision=controlled.precision, scheduler=scheduler
    )
    windows = (ControlWindow(0.7, 0.0, 0.5), OFF)
    whole = _latents(pipeline, *windows)
    part = _latents(pipeline, *windows, denoising_end=0.6)
    assert 1 < len(part) < len(whole)
    np.testing.assert_array_equal(part, whole[: len(part)])


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
