"""The ControlNet against golden data and current diffusers."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from controlnet_cases import (
    ARGUMENTS,
    BASE,
    GOLDEN,
    SMALL,
    TOLERANCE,
    assert_equal,
    build,
    fold,
    golden_json,
    inputs,
    quickly,
    run,
    torch_arguments,
    torch_twin,
)
from diffusers import (
    ControlNetModel as TorchControlNet,
    MultiControlNetModel as TorchMultiControlNet,
)
from flax import nnx
from safetensors.numpy import load_file

from benchmarks.models.loading import parameter_count
from hotshot_jax.convert.tensors.rules import torch_slots
from hotshot_jax.models.controlnet.config import ControlNetConfig
from hotshot_jax.models.controlnet.controlnet import (
    ControlNetModel,
    add_residuals,
)
from hotshot_jax.models.unet.unet import Residuals


def video(frames: np.ndarray, batch: int) -> np.ndarray:
    """PyTorch's `[rows, channels, height, width]` as `[batch, frames, height, width, channels]`."""
    return np.moveaxis(frames, 1, -1).reshape(batch, -1, *frames.shape[2:], frames.shape[1])


@pytest.fixture(scope="module")
def tiny() -> ControlNetModel:
    config = ControlNetConfig.from_dict(golden_json("models/controlnet_tiny.config.json"))
    return build(ControlNetModel, config, seed=1)


def test_golden_residuals_with_scale_and_guess_mode(tiny: ControlNetModel) -> None:
    tensors = load_file(GOLDEN / "cases/controlnet.safetensors")
    rows = len(tensors["sample"])
    arrays = {
        "sample": video(tensors["sample"], rows),
        "timestep": tensors["timestep"],
        "encoder_hidden_states": tensors["encoder_hidden_states"],
        "text_embeds": tensors["text_embeds"],
        "time_ids": tensors["time_ids"],
        "controlnet_cond": video(tensors["controlnet_cond"], rows)[None],
    }
    for prefix, options in golden_json("cases/controlnet.json")["arguments"].items():
        residuals = run(
            tiny, arrays, options["conditioning_scale"], guess_mode=options["guess_mode"]
        )
        stored = {
            f"{prefix}mid": residuals.mid_block,
            **{f"{prefix}down.{i}": x for i, x in enumerate(residuals.down_blocks)},
        }
        compared = [name for name in stored if name in tensors]
        assert f"{prefix}mid" in compared
        for name in compared:
            expected = video(tensors[name], rows)
            error = np.abs(stored[name] - expected).max()
            assert error <= TOLERANCE * np.abs(expected).max(), name


def test_full_size_tensors_are_those_of_pytorch() -> None:
    config = ControlNetConfig.from_dict(golden_json("models/sdxl_full.controlnet.config.json"))
    model = nnx.eval_shape(lambda: ControlNetModel(config, rngs=nnx.Rngs(0)))
    expected = {
        name: tuple(entry["shape"])
        for name, entry in golden_json("models/sdxl_full.controlnet.shapes.json").items()
    }
    assert {name: slot.shape for name, slot in torch_slots(model).items()} == expected
    assert parameter_count(model) == 1_251_014_160


# The three published sizes, and what else a config.json may hold.
VARIANTS: dict[str, dict[str, Any]] = {
    "full": {},
    "mid": {"transformer_layers_per_block": (0, 1)},
    "small": {
        "down_block_types": ("DownBlock2D", "DownBlock2D"),
        "mid_block_type": "UNetMidBlock2D",
        "layers_per_block": 2,
        "transformer_layers_per_block": (0, 0),
    },
    "without blocks at the bottom": {"transformer_layers_per_block": (0, 0)},
    "three levels": {
        "attention_head_dim": 4,
        "block_out_channels": (8, 16, 32),
        "conditioning_channels": 4,
        "conditioning_embedding_out_channels": (4, 8, 12),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        "norm_eps": 1e-3,
        "norm_num_groups": 4,
        "transformer_layers_per_block": (2, 1, 1),
    },
    "blue first": {"controlnet_conditioning_channel_order": "bgr"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_diffusers(variant: str) -> None:
    # Sizes, scale and guess mode vary with the variant, odd sizes among them.
    index = list(VARIANTS).index(variant)
    shape = (1 + index % 2, 1 + index % 3, 4 + index % 2, 6 + index % 3)
    scale, guess_mode = 0.7 + 0.2 * index, index % 3 == 1
    values = BASE | VARIANTS[variant]
    config = ControlNetConfig.from_dict(values)
    ours, theirs = build(ControlNetModel, config, 3), torch_twin(TorchControlNet, values, 3)
    assert set(torch_slots(ours)) == set(theirs.state_dict())
    arrays = inputs(config, **dict(zip(("batch", "frames", "height", "width"), shape, strict=True)))
    expected = theirs(
        **torch_arguments(arrays),
        controlnet_cond=fold(arrays["controlnet_cond"]),
        conditioning_scale=scale,
        guess_mode=guess_mode,
    )
    assert_equal(run(ours, arrays, scale, guess_mode=guess_mode), expected)


def test_several_at_once_equal_diffusers() -> None:
    config = ControlNetConfig.from_dict(BASE)
    scales = [0.6, 1.1]
    arrays = inputs(config, batch=2, frames=2, height=4, width=4)
    other = inputs(config, batch=2, frames=2, height=4, width=4, kinds=2)
    conditions = [arrays["controlnet_cond"], other["controlnet_cond"][:1]]
    ours = add_residuals(
        [
            run(
                build(ControlNetModel, config, seed),
                arrays | {"controlnet_cond": condition},
                scale,
            )
            for seed, condition, scale in zip((5, 6), conditions, scales, strict=True)
        ]
    )
    theirs = TorchMultiControlNet([torch_twin(TorchControlNet, BASE, seed) for seed in (5, 6)])
    expected = theirs(
        **torch_arguments(arrays),
        controlnet_cond=[fold(condition) for condition in conditions],
        conditioning_scale=scales,
    )
    assert_equal(ours, expected)


def test_frames_are_independent() -> None:
    config = ControlNetConfig.from_dict(SMALL)
    model = build(ControlNetModel, config, 3)
    arrays = inputs(config, batch=1, frames=3, height=4, width=4)
    together = run(model, arrays)
    alone = run(
        model,
        arrays
        | {
            "sample": arrays["sample"][:, 1:2],
            "controlnet_cond": arrays["controlnet_cond"][:, :, 1:2],
        },
    )
    # Same sums in another order: float32 round-off only.
    np.testing.assert_allclose(together.mid_block[:, 1:2], alone.mid_block, atol=2e-5)


def test_projecting_and_embedding_first_changes_nothing() -> None:
    config = ControlNetConfig.from_dict(SMALL)
    model = build(ControlNetModel, config, 3)
    arrays = inputs(config, batch=2, frames=2, height=4, width=4)
    sample, timestep, text, pooled, time_ids, cond = (arrays[name] for name in ARGUMENTS)
    graph, state = nnx.split(model)

    @quickly
    def prepare(state: Any) -> Any:
        model = nnx.merge(graph, state)
        return model.project_text(jnp.asarray(text)), model.embed_condition(jnp.asarray(cond[0]))

    @quickly
    def call(state: Any, text: Any, condition: Any) -> Residuals:
        return nnx.merge(graph, state)(sample, timestep, text, pooled, time_ids, condition)

    prepared = call(state, *prepare(state))
    for first, second in zip(
        jax.tree.leaves(run(model, arrays)), jax.tree.leaves(prepared), strict=True
    ):
        # Two programs may round differently: float32 round-off of values around 1.
        np.testing.assert_allclose(first, second, atol=1e-5)


def fresh(create: Callable[[], ControlNetModel]) -> ControlNetModel:
    """Makes a model in one compiled call: made layer by layer, it would compile every shape."""
    graph = nnx.graphdef(nnx.eval_shape(create))
    return nnx.merge(graph, quickly(lambda: nnx.state(create()))())


def test_control_frames_of_another_size_are_refused() -> None:
    config = ControlNetConfig.from_dict(SMALL)
    model = build(ControlNetModel, config, 3)
    arrays = inputs(config, batch=1, frames=2, height=4, width=4)
    arrays["controlnet_cond"] = arrays["controlnet_cond"][:, :, :1]
    with pytest.raises(ValueError, match="do not fit latents"):
        run(model, arrays)


def test_residuals_reach_the_unet_in_bfloat16() -> None:
    config = ControlNetConfig.from_dict(SMALL)
    model = nnx.eval_shape(lambda: ControlNetModel(config, rngs=nnx.Rngs(0), dtype=jnp.bfloat16))
    arrays = inputs(config, batch=1, frames=2, height=4, width=4)
    sample, timestep, text, pooled, time_ids, cond = (arrays[name] for name in ARGUMENTS)
    residuals = nnx.eval_shape(
        lambda model: model(sample, timestep, text, pooled, time_ids, cond[0]), model
    )
    assert {x.dtype for x in jax.tree.leaves(residuals)} == {jnp.dtype(jnp.bfloat16)}
