"""Several ControlNets in one step: guidance, guess mode, windows, and what they cost."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from controlnet_cases import (
    GOLDEN,
    SMALL,
    TOLERANCE,
    build,
    golden_json,
    inputs,
    quickly,
    run,
)
from flax import nnx
from safetensors.numpy import load_file

from hotshot_jax.conditioning.control.preprocess import prepare_control_frames
from hotshot_jax.conditioning.control.residuals import control_residuals, make_control
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.controlnet import ControlNetModel, add_residuals
from hotshot_jax.models.controlnet.union import ControlNetUnionModel
from hotshot_jax.models.unet.unet import Residuals


@pytest.mark.parametrize("case", ["controlnet_pipeline", "controlnet_pipeline_guess"])
def test_first_step_of_the_reference(case: str) -> None:
    config = ControlNetConfig.from_dict(golden_json("models/controlnet_tiny.config.json"))
    graph, state = nnx.split(build(ControlNetModel, config, seed=1))
    tensors = load_file(GOLDEN / f"cases/{case}.safetensors")
    arguments = golden_json(f"cases/{case}.json")["arguments"]
    guess_mode = arguments.get("guess_mode", False)
    frames = prepare_control_frames(
        tensors["control_images_uint8"],
        video_length=arguments["video_length"],
        height=arguments["height"],
        width=arguments["width"],
    )
    hidden = np.concatenate([tensors["negative_prompt_embeds"], tensors["prompt_embeds"]])
    pooled = np.concatenate(
        [tensors["negative_pooled_prompt_embeds"], tensors["pooled_prompt_embeds"]]
    )

    @quickly
    def step(state: Any, scales: jax.Array) -> Residuals:
        controlnet = nnx.merge(graph, state)
        control = make_control(
            controlnet, jnp.asarray(hidden), [frames[None]], only_last=1 if guess_mode else None
        )
        return control_residuals(
            [controlnet],
            [control],
            scales,
            jnp.moveaxis(tensors["step0.unet_input"], 1, -1),
            tensors["timesteps"][0],
            pooled,
            np.broadcast_to(tensors["time_ids"][-1:], (2, 6)),
            videos=1,
            guess_mode=guess_mode,
        )

    residuals = step(state, tensors["cond_scale_per_step"][:1])
    stored = {
        "step0.mid_block_additional_residual": residuals.mid_block,
        **{
            f"step0.down_block_additional_residuals.{i}": x
            for i, x in enumerate(residuals.down_blocks)
        },
    }
    compared = [name for name in stored if name in tensors]
    # The guess mode case stores the mid block's alone.
    assert len(compared) == (1 if guess_mode else len(stored))
    for name in compared:
        expected = np.moveaxis(tensors[name], 1, -1)
        assert stored[name].shape == expected.shape
        error = np.abs(stored[name] - expected).max()
        assert error <= TOLERANCE * np.abs(expected).max(), name
    assert guess_mode == (not residuals.mid_block[0].any())


@pytest.fixture(scope="module")
def arrays() -> dict[str, np.ndarray]:
    config = ControlNetConfig.from_dict(SMALL)
    return inputs(config, batch=2, frames=2, height=4, width=4)


@pytest.fixture(scope="module")
def nets() -> list[ControlNetModel]:
    config = ControlNetConfig.from_dict(SMALL)
    return [build(ControlNetModel, config, seed) for seed in (5, 6)]


@pytest.fixture(scope="module")
def step(
    nets: list[ControlNetModel], arrays: dict[str, np.ndarray]
) -> tuple[Callable[..., Residuals], list[int]]:
    """One compiled step of two ControlNets on two videos, and how often it was traced."""
    graph, state = nnx.split(nnx.List(nets))
    traced: list[int] = []

    @quickly
    def call(scales: jax.Array, frames: jax.Array) -> Residuals:
        traced.append(1)
        models = nnx.merge(graph, state)
        text = jnp.asarray(arrays["encoder_hidden_states"])
        return control_residuals(
            models,
            [make_control(model, text, [part]) for model, part in zip(models, frames, strict=True)],
            scales,
            jnp.asarray(arrays["sample"]),
            jnp.asarray(arrays["timestep"]),
            jnp.asarray(arrays["text_embeds"]),
            jnp.asarray(arrays["time_ids"]),
            videos=2,
        )

    return call, traced


def conditions(arrays: dict[str, np.ndarray]) -> np.ndarray:
    first = arrays["controlnet_cond"]
    return np.concatenate([first, first[:, ::-1]])


def test_several_are_summed(
    step: tuple[Callable[..., Residuals], list[int]],
    nets: list[ControlNetModel],
    arrays: dict[str, np.ndarray],
) -> None:
    both = conditions(arrays)
    together = step[0](np.float32([0.5, 1.5]), both)
    alone = add_residuals(
        [
            run(net, arrays | {"controlnet_cond": condition[None]}, scale)
            for net, condition, scale in zip(nets, both, (0.5, 1.5), strict=True)
        ]
    )
    for first, second in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        # Two programs may round differently: float32 round-off of values around 1.
        np.testing.assert_allclose(first, second, atol=1e-5)


def test_scales_are_values_and_zero_runs_nothing(
    step: tuple[Callable[..., Residuals], list[int]], arrays: dict[str, np.ndarray]
) -> None:
    call, traced = step
    both = conditions(arrays)
    # Were the second ControlNet run, 0 times not-a-number would show.
    poisoned = both.copy()
    poisoned[1] = np.nan
    quiet = call(np.float32([0.5, 0.0]), poisoned)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(quiet))
    assert np.any(quiet.mid_block)
    silent = call(np.float32([0.0, 0.0]), poisoned)
    assert not any(np.any(x) for x in jax.tree.leaves(silent))
    assert len(traced) == 1


def test_unions_take_their_type() -> None:
    values = SMALL | {
        "num_control_type": 3,
        "num_proj_channel": 16,
        "num_trans_channel": 16,
        "num_trans_head": 4,
    }
    config = ControlNetConfig.from_dict(values)
    net = build(ControlNetUnionModel, config, 4)
    graph, state = nnx.split(net)
    arrays = inputs(config, batch=2, frames=1, height=4, width=4)

    @quickly
    def call(kind: jax.Array) -> Residuals:
        net = nnx.merge(graph, state)
        control = make_control(
            net,
            jnp.asarray(arrays["encoder_hidden_states"]),
            arrays["controlnet_cond"][:, :1],
            control_types=kind,
        )
        return control_residuals(
            [net],
            [control],
            jnp.ones(1),
            jnp.asarray(arrays["sample"]),
            jnp.asarray(arrays["timestep"]),
            jnp.asarray(arrays["text_embeds"]),
            jnp.asarray(arrays["time_ids"]),
            videos=1,
        )

    repeated = arrays | {"controlnet_cond": np.repeat(arrays["controlnet_cond"][:, :1], 2, 1)}
    expected = run(net, repeated, control_types=(2,)).mid_block
    np.testing.assert_allclose(call(np.int32([2])).mid_block, expected, atol=1e-5)
    assert np.abs(call(np.int32([1])).mid_block - expected).max() > 1e-3
