import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from benchmarks.toy.from_scratch.autoencoder import (
    AutoencoderConfig,
    autoencoder_loss,
    edges,
    frame_batches,
    train_autoencoder,
)
from benchmarks.toy.from_scratch.fit import FitConfig
from hotshot_jax.convert.tensors.rules import flat_parameters
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.models import AutoencoderKL, AutoencoderKLConfig

FRAMES = ShapesSource(length=50, seed=3, size=32, frames=1)


def config(**options: float) -> AutoencoderConfig:
    values = {"kl_weight": 1e-3, "edge_weight": 2.0, "latent_deviation": 0.5, **options}
    return AutoencoderConfig(
        FitConfig(steps=40, learning_rate=3e-3, warmup_steps=2), batch_size=4, crop=16, **values
    )


@pytest.fixture(scope="module")
def vae() -> AutoencoderKL:
    shape = AutoencoderKLConfig(
        block_out_channels=(4, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        norm_num_groups=2,
    )
    return AutoencoderKL(shape, rngs=nnx.Rngs(0))


def test_batches_are_random_parts_of_consecutive_frames() -> None:
    batch = frame_batches(FRAMES, 4, 16)
    assert batch(2).shape == (4, 16, 16, 3)
    np.testing.assert_array_equal(batch(2), batch(2))
    whole = frame_batches(FRAMES, 4)
    np.testing.assert_array_equal(whole(1)[2], FRAMES[6]["frames"][0])
    # The part lies somewhere in its frame.
    part, frame = batch(1)[2], FRAMES[6]["frames"][0]
    places = [
        (y, x)
        for y in range(17)
        for x in range(17)
        if np.array_equal(part, frame[y : y + 16, x : x + 16])
    ]
    assert places
    # After the last frame comes the first.
    np.testing.assert_array_equal(whole(12)[2], FRAMES[0]["frames"][0])


def test_edges_are_where_neighbours_differ() -> None:
    picture = jnp.zeros((1, 8, 8, 3)).at[:, :, 4:].set(0.5)
    found = np.asarray(edges(picture))[0, :, :, 0]
    # Where it changes, and one pixel to either side; a border is no edge.
    np.testing.assert_allclose(found, np.tile([0, 0, 0, 0.5, 0.5, 0.5, 0, 0], (8, 1)))


def test_training_lowers_the_loss_and_scales_the_latents(vae: AutoencoderKL) -> None:
    losses: list[float] = []
    trained, factor = train_autoencoder(
        vae, FRAMES, config(), lambda step, numbers: losses.append(numbers["loss"])
    )
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])
    frames = jnp.asarray(frame_batches(FRAMES, 50)(0), jnp.float32) / 127.5 - 1
    assert float(jnp.std(trained.encode(frames).mean)) * factor == pytest.approx(0.5, rel=0.05)


@pytest.mark.slow
def test_a_decoder_alone_learns_and_latents_stay_what_they_are(vae: AutoencoderKL) -> None:
    short = dataclasses.replace(config(), fit=FitConfig(2, 1e-3, 0), part="decoder")
    trained, _ = train_autoencoder(vae, FRAMES, short, lambda step, numbers: None)
    before, after = flat_parameters(vae), flat_parameters(trained)
    changed = {path[0] for path in before if (before[path][...] != after[path][...]).any()}
    assert changed == {"decoder", "post_quant_conv"}


def test_the_divergence_is_that_from_a_standard_normal(vae: AutoencoderKL) -> None:
    frames = jnp.asarray(frame_batches(FRAMES, 2)(0))
    key = jax.random.key(0)
    plain, numbers = autoencoder_loss(vae, frames, key, config(kl_weight=0.0))
    weighted, _ = autoencoder_loss(vae, frames, key, config(kl_weight=2.0))
    np.testing.assert_allclose(weighted - plain, 2 * numbers["divergence"], rtol=1e-5)
    latents = vae.encode(frames.astype(jnp.float32) / 127.5 - 1)
    mean, variance = np.asarray(latents.mean), np.exp(np.asarray(latents.log_variance))
    expected = 0.5 * (mean**2 + variance - 1 - np.log(variance)).mean()
    np.testing.assert_allclose(numbers["divergence"], expected, rtol=1e-5)
