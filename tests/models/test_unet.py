"""The UNet: its spatial part against current diffusers, and what its temporal part must do."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from torch_twins import (
    MODEL_TOLERANCE,
    build,
    fill,
    from_torch,
    names,
    normal,
    relative_error,
    to_torch,
)

from benchmarks.parity_cases.compilation import jit_for_few_calls
from hotshot_jax.convert.load import with_parameters
from hotshot_jax.convert.tensors.rules import flat_parameters, torch_slots
from hotshot_jax.models import ProjectedText, UNet3DConditionModel, UNet3DConfig


@jit_for_few_calls(static_argnames=("temporal",))
def forward(unet: Any, *inputs: Any, temporal: bool) -> jax.Array:
    return unet(*inputs, enable_temporal_attentions=temporal)


@jit_for_few_calls()
def project_text(unet: Any, text: jax.Array) -> ProjectedText:
    return unet.project_text(text)


def random_config(seed: int) -> dict[str, Any]:
    """A configuration that both libraries take; temporal layers need multiples of 32 channels."""
    random = np.random.default_rng(seed)
    levels = int(random.integers(2, 4))
    channels = sorted(int(32 * random.integers(1, 4)) for _ in range(levels))
    cross_attention = [bool(random.integers(0, 2)) for _ in range(levels - 1)] + [True]
    text_channels = int(random.integers(5, 30))
    embedding = int(2 * random.integers(2, 6))
    return {
        "block_out_channels": channels,
        "down_block_types": [
            "CrossAttnDownBlock2D" if has else "DownBlock2D" for has in cross_attention
        ],
        "up_block_types": [
            "CrossAttnUpBlock2D" if has else "UpBlock2D" for has in cross_attention[::-1]
        ],
        "cross_attention_dim": text_channels,
        "attention_head_dim": [int(random.choice([1, 2, 4, 8])) for _ in range(levels)],
        "transformer_layers_per_block": [int(random.integers(1, 4)) for _ in range(levels)],
        "layers_per_block": int(random.integers(1, 3)),
        "norm_num_groups": int(random.choice([8, 16, 32])),
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": embedding,
        "projection_class_embeddings_input_dim": 6 * embedding + text_channels,
        "use_linear_projection": True,
    }


def random_inputs(
    config: UNet3DConfig, seed: int, batch: int, frames: int, height: int, width: int
) -> list[np.ndarray]:
    random = np.random.default_rng([seed, 1])
    text_channels = config.cross_attention_dim
    pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
    return [
        normal(seed, batch, frames, height, width, config.in_channels),
        random.integers(0, 1000, batch).astype(np.float32),
        normal(seed + 1, batch, 7, text_channels),
        normal(seed + 2, batch, pooled),
        random.integers(0, 2000, (batch, 6)).astype(np.float32),
    ]


# Odd heights and widths too: the way up has to meet the sizes of the way down.
@pytest.mark.parametrize(
    ("seed", "height", "width"), [(0, 8, 12), (1, 7, 9), (2, 13, 4), (3, 6, 10)]
)
def test_single_frames_equal_diffusers(seed: int, height: int, width: int) -> None:
    values = random_config(seed)
    config = UNet3DConfig.from_dict(values)
    unet = build(lambda rngs: UNet3DConditionModel(config, rngs=rngs))
    twin = fill(UNet2DConditionModel(**values))
    assert {name for name in torch_slots(unet) if "temporal" not in name} == names(twin)

    sample, timestep, text, pooled, sizes = inputs = random_inputs(
        config, seed, 2, 1, height, width
    )
    expected = twin(
        to_torch(sample[:, 0]),
        torch.from_numpy(timestep),
        torch.from_numpy(text),
        added_cond_kwargs={
            "text_embeds": torch.from_numpy(pooled),
            "time_ids": torch.from_numpy(sizes),
        },
    ).sample
    got = forward(unet, *inputs, temporal=False)
    assert relative_error(got[:, 0], from_torch(expected)) < MODEL_TOLERANCE


TINY = UNet3DConfig(
    block_out_channels=(32, 64),
    down_block_types=("DownBlock3D", "CrossAttnDownBlock3D"),
    up_block_types=("CrossAttnUpBlock3D", "UpBlock3D"),
    cross_attention_dim=12,
    attention_head_dim=(2, 4),
    transformer_layers_per_block=(1, 2),
    layers_per_block=1,
    norm_num_groups=16,
    addition_time_embed_dim=4,
    projection_class_embeddings_input_dim=6 * 4 + 12,
)


@functools.cache
def tiny_unet() -> UNet3DConditionModel:
    return build(lambda rngs: UNet3DConditionModel(TINY, rngs=rngs))


def tiny_inputs(seed: int = 5, batch: int = 1, frames: int = 3) -> list[np.ndarray]:
    return random_inputs(TINY, seed, batch, frames, 4, 6)


def test_new_temporal_layers_change_nothing() -> None:
    """New ones end in zeros; `test_temporal_transformer` has the initial values themselves."""
    parameters = {
        path: jnp.zeros_like(value)
        if path[-2] == "proj_out" and "temporal_attentions" in path
        else value
        for path, value in flat_parameters(tiny_unet()).items()
    }
    fresh = with_parameters(tiny_unet(), parameters)
    on = forward(fresh, *tiny_inputs(), temporal=True)
    off = forward(tiny_unet(), *tiny_inputs(), temporal=False)
    # Adding zeros is exact, but the compiler may fuse the two programs differently.
    assert relative_error(on, off) < MODEL_TOLERANCE


def test_trained_temporal_layers_change_something() -> None:
    on = forward(tiny_unet(), *tiny_inputs(), temporal=True)
    off = forward(tiny_unet(), *tiny_inputs(), temporal=False)
    assert relative_error(on, off) > 0.1


def test_equal_frames_equal_one_frame_without_temporal_layers() -> None:
    """Statistics pooled over equal frames are those of one frame."""
    sample, *conditions = tiny_inputs(frames=1)
    one = forward(tiny_unet(), sample, *conditions, temporal=False)
    three = forward(tiny_unet(), np.repeat(sample, 3, axis=1), *conditions, temporal=False)
    assert relative_error(three, jnp.repeat(one, 3, axis=1)) < MODEL_TOLERANCE


def test_different_frames_share_statistics_without_temporal_layers() -> None:
    """The group norms of the resnets pool over frames, so frames are not independent."""
    sample, *conditions = tiny_inputs(frames=3)
    together = forward(tiny_unet(), sample, *conditions, temporal=False)
    alone = forward(tiny_unet(), sample[:, :1], *conditions, temporal=False)
    assert relative_error(together[:, :1], alone) > 1e-2


def test_rows_of_a_batch_are_independent() -> None:
    inputs = tiny_inputs(batch=2)
    both = forward(tiny_unet(), *inputs, temporal=True)
    for row in range(2):
        alone = forward(tiny_unet(), *(array[row : row + 1] for array in inputs), temporal=True)
        assert relative_error(both[row : row + 1], alone) < MODEL_TOLERANCE


def test_order_of_frames_matters() -> None:
    """Positions are encoded; without them reversed frames would give reversed frames."""
    sample, *conditions = tiny_inputs()
    forwards = forward(tiny_unet(), sample, *conditions, temporal=True)
    backwards = forward(tiny_unet(), sample[:, ::-1], *conditions, temporal=True)
    assert relative_error(backwards[:, ::-1], forwards) > 1e-2


def test_24_frames_run_and_25_raise() -> None:
    unet = tiny_unet()

    def shape(frames: int) -> tuple[int, ...]:
        inputs = tiny_inputs(frames=frames)
        return jax.eval_shape(lambda: unet(*map(jnp.asarray, inputs))).shape

    assert shape(24) == (1, 24, 4, 6, 4)
    with pytest.raises(ValueError, match=r"25 frames.*24 positions"):
        shape(25)


def test_25_frames_run_without_temporal_layers() -> None:
    unet, inputs = tiny_unet(), tiny_inputs(frames=25)
    output = jax.eval_shape(
        lambda: unet(*map(jnp.asarray, inputs), enable_temporal_attentions=False)
    )
    assert output.shape == (1, 25, 4, 6, 4)


def test_text_projected_once_equals_text_projected_in_each_call() -> None:
    sample, timestep, text, pooled, sizes = tiny_inputs()
    projected = project_text(tiny_unet(), text)
    once = forward(tiny_unet(), sample, timestep, projected, pooled, sizes, temporal=True)
    each = forward(tiny_unet(), sample, timestep, text, pooled, sizes, temporal=True)
    assert relative_error(once, each) < MODEL_TOLERANCE


def test_scalar_timestep_is_that_of_every_row() -> None:
    sample, _, *conditions = tiny_inputs(batch=2)
    scalar = forward(tiny_unet(), sample, np.float32(7), *conditions, temporal=True)
    rows = forward(tiny_unet(), sample, np.full(2, 7, np.float32), *conditions, temporal=True)
    assert relative_error(scalar, rows) < MODEL_TOLERANCE


def test_bfloat16_stays_close_to_float32() -> None:
    half = build(lambda rngs: UNet3DConditionModel(TINY, rngs=rngs, dtype=jnp.bfloat16))
    inputs = tiny_inputs()
    got = forward(half, *inputs, temporal=True)
    assert got.dtype == jnp.bfloat16
    expected = np.asarray(forward(tiny_unet(), *inputs, temporal=True))
    error = np.asarray(got, np.float32) - expected
    # bfloat16 rounds by up to 2^-9. Some forty roundings follow each other on the residual path;
    # were they independent, they would add up to sqrt(40) / 2^9 = 1.2 % of the standard deviation.
    assert np.sqrt(np.mean(error**2)) / expected.std() < 0.04
