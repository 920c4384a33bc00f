"""Group norm and layer norm: against PyTorch, and with float32 statistics in every dtype."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from torch_twins import normal, relative_error

from benchmarks.parity_cases.compilation import jit_for_few_calls
from hotshot_jax.models.layers.normalization import GroupNorm, LayerNorm

# A mean, a variance and an affine map in float32.
TOLERANCE = 2e-6


@jit_for_few_calls()
def run(norm: Any, x: np.ndarray) -> jax.Array:
    return norm(x)


@pytest.mark.parametrize(("channels", "groups"), [(32, 8), (24, 24), (12, 1), (64, 32)])
@pytest.mark.parametrize("pool_frames", [False, True])
def test_group_norm_equals_torch(channels: int, groups: int, pool_frames: bool) -> None:
    norm = GroupNorm(channels, groups, epsilon=1e-6, pool_frames=pool_frames)
    norm.scale[...], norm.bias[...] = normal(1, channels), normal(2, channels)
    x = normal(3, 2, 3, 4, 5, channels) + normal(4, channels)
    arguments = (groups, *(torch.from_numpy(np.array(p[...])) for p in (norm.scale, norm.bias)))
    channels_first = torch.from_numpy(np.moveaxis(x, -1, 2).copy())
    if pool_frames:
        # Frames are one more spatial axis there.
        video = channels_first.transpose(1, 2)
        expected = torch.nn.functional.group_norm(video, *arguments, eps=1e-6).transpose(1, 2)
    else:
        images = channels_first.flatten(0, 1)
        expected = torch.nn.functional.group_norm(images, *arguments, eps=1e-6)
    expected = np.moveaxis(expected.reshape(channels_first.shape).numpy(), 2, -1)
    assert relative_error(run(norm, x), expected) < TOLERANCE


def test_layer_norm_equals_torch() -> None:
    norm = LayerNorm(24, epsilon=1e-5)
    norm.scale[...], norm.bias[...] = normal(1, 24), normal(2, 24)
    x = normal(3, 2, 5, 24) * 1e-2
    expected = torch.nn.functional.layer_norm(
        torch.from_numpy(x),
        (24,),
        *(torch.from_numpy(np.array(p[...])) for p in (norm.scale, norm.bias)),
        eps=1e-5,
    )
    assert relative_error(run(norm, x), expected.numpy()) < TOLERANCE


def normalised(x: np.ndarray, axes: tuple[int, ...], epsilon: float) -> np.ndarray:
    """In float64."""
    x = x.astype(np.float64)
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon)


@pytest.mark.parametrize("pool_frames", [False, True])
def test_group_norm_survives_large_offsets(pool_frames: bool) -> None:
    x = normal(0, 1, 2, 8, 8, 16) + np.float32(1e4)
    got = run(GroupNorm(16, 1, epsilon=1e-6, pool_frames=pool_frames), x)
    axes = (1, 2, 3, 4) if pool_frames else (2, 3, 4)
    # The mean of numbers around 1e4 is exact to about 1e-3 in float32; a variance as the
    # difference of mean squares around 1e8 would be off by several.
    np.testing.assert_allclose(got, normalised(x, axes, 1e-6), atol=5e-3)


def test_layer_norm_survives_large_offsets() -> None:
    x = normal(0, 4, 32) + np.float32(1e4)
    got = run(LayerNorm(32, epsilon=1e-5), x)
    np.testing.assert_allclose(got, normalised(x, (-1,), 1e-5), atol=5e-3)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_statistics_are_float32_in_half_precision(dtype: jnp.dtype) -> None:
    # 64 in float16 and bfloat16: sums over 1024 pixels would overflow or lose every digit.
    x = jnp.asarray(normal(0, 1, 1, 32, 32, 8) + 64, dtype)
    expected = normalised(np.asarray(x, np.float32), (1, 2, 3, 4), 1e-6)
    group = run(GroupNorm(8, 1, epsilon=1e-6, dtype=dtype, param_dtype=dtype), x)
    assert group.dtype == dtype
    # One rounding of the output remains: half a unit in the last place of values below 8.
    rounding = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(group, np.float32), expected, atol=rounding)
    layer = run(LayerNorm(8, epsilon=1e-5, dtype=dtype, param_dtype=dtype), x)
    expected = normalised(np.asarray(x, np.float32), (-1,), 1e-5)
    np.testing.assert_allclose(np.asarray(layer, np.float32), expected, atol=rounding)


def test_groups_have_to_divide_channels() -> None:
    with pytest.raises(ValueError, match=r"10 channels.*4 groups"):
        GroupNorm(10, 4, epsilon=1e-6)
