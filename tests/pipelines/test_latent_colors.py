"""Latents as colours, without decoding them."""

import numpy as np

from hotshot_jax.jobs.maker import ClipMaker
from hotshot_jax.jobs.settings import ModelSettings
from hotshot_jax.pipelines.latent_colors import LatentColors
from hotshot_jax.pipelines.latents import decode_videos


def test_a_linear_decoder_is_found() -> None:
    random = np.random.default_rng(0)
    weights, offset = random.normal(size=(4, 3)) / 10, np.array([0.4, 0.5, 0.6])
    latents = random.normal(size=(2, 6, 5, 4)).astype(np.float32)
    pixels = (latents @ weights + offset).repeat(8, 1).repeat(8, 2)
    # Within a latent's square the mean counts.
    pixels = pixels + np.tile([-0.1, 0.1], 20)[None, None, :, None]
    colors = LatentColors.fitted(latents, pixels)
    np.testing.assert_allclose(colors.weights, weights, atol=1e-6)
    np.testing.assert_allclose(colors.offset, offset, atol=1e-6)


def test_noise_is_taken_down_and_nothing_overflows() -> None:
    colors = LatentColors(np.ones((4, 3)) / 10, np.full(3, 0.5))
    latents = np.random.default_rng(0).normal(size=(3, 8, 8, 4)).astype(np.float32)
    assert colors(latents).shape == (3, 8, 8, 3)
    assert np.abs(colors(14 * latents).astype(int) - colors(2 * latents)).max() <= 1
    latents[0, 0, 0, 0] = np.nan
    assert colors(latents).dtype == np.uint8


def test_the_map_of_the_built_in_model_beats_a_constant() -> None:
    pipeline = ClipMaker.load(ModelSettings(precision="f32")).pipeline
    colors = LatentColors.of_vae(pipeline)
    # Finer than what it was fitted to, in every single latent too.
    random = np.random.default_rng(1)
    fields = random.normal(size=(1, 4, 8, 8, 4)).repeat(2, 2).repeat(2, 3)
    latents = (fields + random.normal(size=fields.shape) / 4).astype(np.float32)
    decoded = decode_videos(pipeline.runtime, latents, most_frames=pipeline.decode_frames)
    small = decoded.reshape(4, 16, 8, 16, 8, 3).mean((2, 4))
    error = ((colors(latents[0]) / 255 - small) ** 2).mean()
    assert error < 0.6 * ((small - small.mean((0, 1, 2))) ** 2).mean()
