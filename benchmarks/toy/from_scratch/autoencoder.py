"""Training a VAE: Kingma and Welling, "Auto-Encoding Variational Bayes", arXiv:1312.6114.

Pixels are compared by their absolute difference. There is no perceptual and no adversarial loss:
flat shapes have no texture that those could bring back.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from benchmarks.toy.from_scratch.fit import FitConfig, Report, fit
from hotshot_jax.data.shapes import ShapesSource
from hotshot_jax.models import AutoencoderKL

_OF_DECODER = ("post_quant_conv", "decoder")
# Frames of which the deviation of the latents is taken.
_MEASURED = 256


@dataclasses.dataclass(frozen=True)
class AutoencoderConfig:
    """How a VAE is trained.

    Attributes:
        fit: steps and learning rate.
        batch_size: frames a step.
        crop: side in pixels of the random part of each frame that is trained on; None for all of
            it. A convolutional model learns most of its task from parts, at a fraction of the cost.
        kl_weight: of the divergence from a standard normal distribution, per latent number.
        edge_weight: how much more a pixel weighs where the picture has an edge. Edges cover few
            pixels and say which shape it is.
        latent_deviation: standard deviation of the latents that the UNet is to see.
        part: one of `command.AUTOENCODER_PARTS`.
    """

    fit: FitConfig
    batch_size: int
    crop: int | None
    kl_weight: float
    edge_weight: float
    latent_deviation: float
    part: str = "all"


def train_autoencoder(
    vae: AutoencoderKL, frames: ShapesSource, config: AutoencoderConfig, report: Report
) -> tuple[AutoencoderKL, float]:
    """Trains a VAE on single frames.

    Args:
        vae: where to start.
        frames: the data, with one frame a clip.
        config: how.
        report: takes the numbers of each step.

    Returns:
        The trained VAE, and the scaling factor that gives its latents the wanted deviation.

    Raises:
        HotshotError: the loss is not finite.
    """
    parts = _OF_DECODER if config.part == "decoder" else ("encoder", "quant_conv", *_OF_DECODER)
    graph, parameters, *frozen = nnx.split(vae, lambda path, _: path[0] in parts, ...)
    batch_of = frame_batches(frames, config.batch_size, config.crop)

    def loss(
        parameters: Any, batch: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        return autoencoder_loss(nnx.merge(graph, parameters, *frozen), batch, key, config)

    trained = nnx.merge(graph, fit(loss, parameters, batch_of, config.fit, report), *frozen)
    sample = frame_batches(frames, _MEASURED)(0)
    deviation = jnp.std(jax.jit(lambda vae, x: vae.encode(to_pixels(x)).mean)(trained, sample))
    return trained, config.latent_deviation / float(deviation)


def frame_batches(
    frames: ShapesSource, size: int, crop: int | None = None
) -> Callable[[int], np.ndarray]:
    """From the number of a batch to uint8 frames `[size, height, width, 3]`."""

    def frame(index: int) -> np.ndarray:
        picture: np.ndarray = frames[index % len(frames)]["frames"][0]
        if crop is None:
            return picture
        generator = np.random.default_rng([frames.seed, index])
        top, left = (generator.integers(side - crop + 1) for side in picture.shape[:2])
        return picture[top : top + crop, left : left + crop]

    return lambda number: np.stack([frame(number * size + index) for index in range(size)])


def to_pixels(frames: jax.Array) -> jax.Array:
    """From uint8 to float32 in [-1, 1]."""
    return frames.astype(jnp.float32) / 127.5 - 1


def autoencoder_loss(
    vae: AutoencoderKL, frames: jax.Array, key: jax.Array, config: AutoencoderConfig
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss on uint8 frames `[batch, height, width, 3]`, and its parts."""
    pixels = to_pixels(frames)
    latents = vae.encode(pixels)
    noise = jax.random.normal(key, latents.mean.shape, jnp.float32)
    error = jnp.abs(vae.decode(latents.sample(noise)) - pixels)
    reconstruction = jnp.mean(error * (1 + config.edge_weight * edges(pixels)))
    divergence = 0.5 * jnp.mean(
        jnp.square(latents.mean) + jnp.exp(latents.log_variance) - 1 - latents.log_variance
    )
    numbers = {
        "absolute_error": jnp.mean(error),
        "divergence": divergence,
        "latent_deviation": jnp.std(latents.mean),
        "noise_deviation": jnp.mean(latents.standard_deviation),
    }
    return reconstruction + config.kl_weight * divergence, numbers


def edges(pixels: jax.Array) -> jax.Array:
    """How much each pixel differs from its neighbours: `[batch, height, width, 1]` in [0, 1]."""
    down = jnp.abs(jnp.diff(pixels, axis=-3, prepend=pixels[..., :1, :, :]))
    right = jnp.abs(jnp.diff(pixels, axis=-2, prepend=pixels[..., :1, :]))
    steps = jnp.maximum(down, right).max(axis=-1, keepdims=True)
    # Both sides of a step, and one pixel around it.
    grown = jax.lax.reduce_window(steps, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    return jnp.minimum(grown, 1.0)
