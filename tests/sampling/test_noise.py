"""Sources of random numbers."""

import ml_dtypes
import numpy as np
import pytest
import torch

from hotshot_jax.errors import UsageError
from hotshot_jax.sampling.noise import GivenNoise, make_noise

SHAPE = (2, 8, 4, 6, 4)
"""[videos, frames, height, width, channels]"""

_DTYPES = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(ml_dtypes.bfloat16),
}


def _drawn(generator: torch.Generator, videos: int, dtype: torch.dtype) -> np.ndarray:
    _, frames, height, width, channels = SHAPE
    drawn = torch.randn((videos, channels, frames, height, width), generator=generator, dtype=dtype)
    return np.moveaxis(drawn.float().numpy(), 1, -1)


@pytest.mark.parametrize("dtype", list(_DTYPES), ids=str)
def test_one_seed_draws_all_videos_as_torch_does(dtype: torch.dtype) -> None:
    noise = make_noise("torch", [455], _DTYPES[dtype])
    generator = torch.Generator().manual_seed(455)
    for _ in range(3):
        np.testing.assert_array_equal(noise.draw(SHAPE), _drawn(generator, 2, dtype))


def test_a_seed_for_each_video_draws_each_from_its_own() -> None:
    noise = make_noise("torch", [1, 2], np.dtype(np.float32))
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    for _ in range(2):
        expected = np.concatenate([_drawn(each, 1, torch.float32) for each in generators])
        np.testing.assert_array_equal(noise.draw(SHAPE), expected)


def test_jax_noise_is_normal_and_follows_its_seeds() -> None:
    draws = make_noise("jax", [5], np.dtype(np.float32))
    first, second = draws.draw(SHAPE), draws.draw(SHAPE)
    again = make_noise("jax", [5], np.dtype(np.float32)).draw(SHAPE)
    np.testing.assert_array_equal(first, again)
    assert (first != second).all()
    # 1536 numbers: the standard error of the mean is 0.026, that of the deviation 0.018.
    assert abs(first.mean()) < 0.1
    assert abs(first.std() - 1) < 0.1
    apart = make_noise("jax", [5, 6], np.dtype(np.float32)).draw(SHAPE)
    assert (apart[0] != apart[1]).all()


def test_given_arrays_come_in_their_order_and_run_out() -> None:
    arrays = [np.full(SHAPE, value, np.float16) for value in (1, 2)]
    noise = GivenNoise(iter(arrays))
    assert noise.draw(SHAPE)[0, 0, 0, 0, 0] == 1
    assert noise.draw(SHAPE).dtype == np.float32
    with pytest.raises(UsageError, match="fewer arrays"):
        noise.draw(SHAPE)


def test_given_arrays_of_another_shape_are_refused() -> None:
    with pytest.raises(UsageError, match="shape"):
        GivenNoise(iter([np.zeros((1, 8, 4, 6, 4))])).draw(SHAPE)


@pytest.mark.parametrize("seed", [-1, 2**64, True, 1.5, "1"])
def test_what_is_no_seed_is_refused(seed: object) -> None:
    with pytest.raises(UsageError, match="seed"):
        make_noise("torch", [seed], np.dtype(np.float32))  # type: ignore[list-item]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="torch or jax"):
        make_noise("numpy", [1], np.dtype(np.float32))
