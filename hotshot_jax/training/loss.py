"""The diffusion loss.

Noise is added to latents and the model is to find it (Ho et al. 2020, arXiv:2006.11239), with an
offset that shifts whole channels (https://www.crosslabs.org/blog/diffusion-with-offset-noise) and
min-SNR weights (Hang et al. 2023, arXiv:2303.09556).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers.base import Scheduler

# As in scale-free use of the Huber loss on unit noise: quadratic up to a tenth of its deviation.
_HUBER_DELTA = 0.1
_QUARTERS = 4

Arrays = Mapping[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    Attributes:
        noise_offset: scale of a second noise that is equal for all frames and pixels of a channel;
            it is part of what the model has to find.
        snr_gamma: of `min_snr_weights`; None weighs all samples alike.
        snr_weights: "paper" or "reference", see there.
        loss: "mse" or "huber".
    """

    noise_offset: float = 0.05
    snr_gamma: float | None = None
    snr_weights: str = "paper"
    loss: str = "mse"


@dataclasses.dataclass(frozen=True)
class Draws:
    """The random numbers of one step.

    Attributes:
        noise: float32 `[batch, frames, height, width, channels]`, the offset included.
        timesteps: int32 `[batch]`.
    """

    noise: jax.Array
    timesteps: jax.Array


def draw(key: jax.Array, shape: tuple[int, ...], config: LossConfig, timesteps: int) -> Draws:
    """Draws noise and timesteps.

    Args:
        key: the same key gives the same numbers on any number of devices.
        shape: of the latents, `(batch, frames, height, width, channels)`.
        config: for the noise offset.
        timesteps: of the noise schedule.
    """
    noise_key, offset_key, time_key = jax.random.split(key, 3)
    noise = jax.random.normal(noise_key, shape, jnp.float32)
    if config.noise_offset:
        offset = jax.random.normal(offset_key, (shape[0], 1, 1, 1, shape[-1]), jnp.float32)
        noise = offset_noise(noise, offset, config.noise_offset)
    return Draws(noise, jax.random.randint(time_key, shape[:1], 0, timesteps))


def offset_noise(noise: jax.Array, offset: jax.Array, scale: float) -> jax.Array:
    """Noise with an offset for each sample and channel.

    Args:
        noise: `[batch, frames, height, width, channels]`.
        offset: standard normal, `[batch, 1, 1, 1, channels]`.
        scale: of the offset.
    """
    return noise + scale * offset


def min_snr_weights(
    snr: jax.Array, gamma: float, prediction_type: str = "epsilon", form: str = "paper"
) -> jax.Array:
    """Weights under which the error of the clean latents counts min(SNR, gamma), `[batch]`.

    An error of the noise is that error times the SNR, one of the velocity times SNR + 1: the
    weights are min(SNR, gamma) / SNR, which is 1 where there is no signal, and
    min(SNR, gamma) / (SNR + 1), which is 0 there (sections 3.4 and 4.1 of the paper).

    Args:
        snr: signal-to-noise ratios, `[batch]`.
        gamma: above which a higher ratio weighs no more.
        prediction_type: what the model finds, "epsilon" or "v_prediction".
        form: "paper", or "reference" for Hotshot-XL's training script, which divides by the SNR
            whatever the model finds.
    """
    if prediction_type == "v_prediction" and form == "paper":
        return jnp.minimum(snr, gamma) / (snr + 1)
    return jnp.minimum(1.0, gamma / snr)


def target(scheduler: Scheduler, latents: jax.Array, draws: Draws) -> jax.Array:
    """What the model has to find: the noise, or the velocity.

    Raises:
        HotshotError: the scheduler predicts something that models are not trained on.
    """
    if scheduler.prediction_type == "epsilon":
        return draws.noise
    if scheduler.prediction_type == "v_prediction":
        return scheduler.velocity(latents, draws.noise, draws.timesteps)
    raise HotshotError(
        f"scheduler_config.json: prediction_type {scheduler.prediction_type!r} cannot be trained; "
        "expected epsilon or v_prediction."
    )


def per_sample_loss(prediction: jax.Array, wanted: jax.Array, loss: str) -> jax.Array:
    """The mean loss of each sample, float32 `[batch]`.

    Args:
        prediction: `[batch, frames, height, width, channels]`, any float dtype.
        wanted: likewise.
        loss: "mse" or "huber" (Huber's, divided by its delta, so that it grows like the absolute
            error).
    """
    error = prediction.astype(jnp.float32) - wanted.astype(jnp.float32)
    squared = jnp.square(error)
    if loss == "huber":
        size = jnp.abs(error)
        values = jnp.where(
            size <= _HUBER_DELTA, squared / (2 * _HUBER_DELTA), size - _HUBER_DELTA / 2
        )
    else:
        values = squared
    return mean_of_samples(values)


def mean_of_samples(values: jax.Array) -> jax.Array:
    """The mean over all axes but the first."""
    return values.mean(axis=tuple(range(1, values.ndim)))


def by_quarter(losses: jax.Array, timesteps: jax.Array, count: int) -> dict[str, jax.Array]:
    """Losses added up by quarter of the timesteps, from the least noisy.

    Args:
        losses: float32 `[batch]`.
        timesteps: int32 `[batch]`.
        count: of the timesteps of the schedule.

    Returns:
        `quarter_sums` and `quarter_counts`, float32 [4].
    """
    of_quarter = jax.nn.one_hot(timesteps * _QUARTERS // count, _QUARTERS, dtype=jnp.float32)
    return {"quarter_sums": losses @ of_quarter, "quarter_counts": of_quarter.sum(0)}


def diffusion_loss(
    model: Any,
    scheduler: Scheduler,
    config: LossConfig,
    latents: jax.Array,
    text: Arrays,
    draws: Draws,
) -> tuple[jax.Array, dict[str, Any]]:
    """The loss of a batch.

    Args:
        model: a UNet, or what is called like one.
        scheduler: its noise schedule and what it predicts.
        config: what is minimised.
        latents: scaled, float32 `[batch, frames, height, width, channels]`.
        text: `hidden` `[batch, tokens, channels]`, `pooled` `[batch, text_channels]` and `time_ids`
            `[batch, 6]`; for a model that takes control frames these as `control`.
        draws: noise and timesteps.

    Returns:
        The weighted mean, and `by_quarter` of the unweighted losses.
    """
    noisy = scheduler.add_noise(latents, draws.noise, draws.timesteps)
    control = (text["control"],) if "control" in text else ()
    prediction = model(
        noisy,
        draws.timesteps.astype(jnp.float32),
        text["hidden"],
        text["pooled"],
        text["time_ids"],
        *control,
        enable_temporal_attentions=latents.shape[1] > 1,
    )
    losses = per_sample_loss(prediction, target(scheduler, latents, draws), config.loss)
    parts = by_quarter(losses, draws.timesteps, scheduler.num_train_timesteps)
    if config.snr_gamma is not None:
        snr = scheduler.snr(draws.timesteps)
        losses = losses * min_snr_weights(
            snr, config.snr_gamma, scheduler.prediction_type, config.snr_weights
        )
    return losses.mean(), parts
