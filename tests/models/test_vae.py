"""The VAE against current diffusers."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from diffusers import AutoencoderKL as TorchAutoencoderKL
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
from hotshot_jax.models import AutoencoderKL, AutoencoderKLConfig, DiagonalGaussian


@jit_for_few_calls()
def encode(vae: Any, pixels: np.ndarray) -> DiagonalGaussian:
    return vae.encode(pixels)


@jit_for_few_calls()
def decode(vae: Any, latents: np.ndarray) -> jax.Array:
    return vae.decode(latents)


def random_config(seed: int) -> dict[str, Any]:
    random = np.random.default_rng(seed)
    levels = int(random.integers(2, 4))
    return {
        "block_out_channels": [int(16 * random.integers(1, 4)) for _ in range(levels)],
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "layers_per_block": int(random.integers(1, 3)),
        "latent_channels": int(random.integers(2, 6)),
        "norm_num_groups": int(random.choice([4, 8, 16])),
    }


@pytest.mark.parametrize("seed", range(3))
def test_equals_diffusers(seed: int) -> None:
    values = random_config(seed)
    config = AutoencoderKLConfig.from_dict(values)
    vae = build(lambda rngs: AutoencoderKL(config, rngs=rngs))
    twin = fill(TorchAutoencoderKL(**values))
    assert set(torch_slots(vae)) == names(twin)
    size = config.scale_factor

    pixels = normal(seed, 2, 3 * size, 2 * size, 3)
    expected = twin.encode(to_torch(pixels)).latent_dist
    got = encode(vae, pixels)
    assert relative_error(got.mean, from_torch(expected.mean)) < MODEL_TOLERANCE
    assert relative_error(got.log_variance, from_torch(expected.logvar)) < MODEL_TOLERANCE
    assert relative_error(got.standard_deviation, from_torch(expected.std)) < MODEL_TOLERANCE
    noise = normal(seed + 1, *got.mean.shape)
    sample = from_torch(expected.mean) + from_torch(expected.std) * noise
    assert relative_error(got.sample(noise), sample) < MODEL_TOLERANCE

    latents = normal(seed + 2, 2, 3, 5, config.latent_channels)
    decoded = from_torch(twin.decode(to_torch(latents)).sample)
    assert decoded.shape == (2, 3 * size, 5 * size, 3)
    assert relative_error(decode(vae, latents), decoded) < MODEL_TOLERANCE


@functools.cache
def small_vae() -> AutoencoderKL:
    config = AutoencoderKLConfig(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=4,
    )
    return build(lambda rngs: AutoencoderKL(config, rngs=rngs))


def test_frames_are_decoded_one_by_one() -> None:
    latents = normal(0, 2, 3, 2, 4, 4)
    videos = decode(small_vae(), latents)
    alone = decode(small_vae(), latents[1, 2])
    assert relative_error(videos[1, 2], alone) < MODEL_TOLERANCE


def test_log_variance_is_clamped() -> None:
    """Images far outside [-1, 1] must not make the standard deviation overflow."""
    vae, pixels = small_vae(), normal(0, 1, 4, 4, 3)
    bias = vae.quant_conv.bias[...]
    for value, clamped in ((1e4, 20.0), (-1e4, -30.0)):
        extreme = with_parameters(
            vae, flat_parameters(vae) | {("quant_conv", "bias"): jnp.full_like(bias, value)}
        )
        log_variance = encode(extreme, pixels).log_variance
        np.testing.assert_array_equal(log_variance, np.full_like(log_variance, clamped))
