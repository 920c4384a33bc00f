"""Latent consistency distillation: from many steps with guidance to a few without.

A teacher takes one guided DDIM step from a noisy clip; the student has to jump to the same clean
clip from before the step and after it (Luo et al. 2023, arXiv:2310.04378, algorithm 1). Where the
student is the teacher with low-rank factors (arXiv:2311.05556), the strength of the guidance is no
input of it: the factors learn the mean over the strengths that are drawn.

    D(x, t) = c_skip x + c_out x_0(x, t),   c_skip = a²/(τ² + a²),   c_out = τ/sqrt(τ² + a²)
    m = m_c + w (m_c - m_u),   x' = sqrt(ā') x_0(m) + sqrt(1 - ā') ε(m)
    loss = d(D(x, t), D'(x', t'))

with a = 1/2 and τ = t · scaling; D' has no gradient. Timesteps are those of DDIM in so many steps:
k - 1, 2 k - 1, ... T - 1.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from hotshot_jax.errors import HotshotError
from hotshot_jax.schedulers.base import Scheduler
from hotshot_jax.schedulers.lcm import SIGMA_DATA
from hotshot_jax.schedulers.numbers import denoised_weights, noise_weights
from hotshot_jax.training.loss import Arrays, by_quarter, mean_of_samples


@dataclasses.dataclass(frozen=True)
class ConsistencyConfig:
    """How it is distilled; names and numbers are those of diffusers' scripts.

    Attributes:
        w_min: least strength of the teacher's guidance; w here is `guidance_scale` - 1 elsewhere.
        w_max: greatest, likewise.
        num_ddim_timesteps: steps of the teacher, each of which the student is to skip over.
        loss: "mse", or "huber" for sqrt(error² + c²) - c.
        huber_c: that c.
        timestep_scaling_factor: of the timestep in the boundary condition.
        target: whose jump from after the step is aimed at, the "student"'s own or that of the
            moving average of its factors ("ema").
    """

    w_min: float = 3.0
    w_max: float = 15.0
    num_ddim_timesteps: int = 50
    loss: str = "mse"
    huber_c: float = 1e-3
    timestep_scaling_factor: float = 10.0
    target: str = "student"


@dataclasses.dataclass(frozen=True)
class ConsistencyDraws:
    """The random numbers of one step.

    Attributes:
        noise: float32 `[batch, frames, height, width, channels]`.
        index: number of the DDIM timestep, 0 for the least noisy, int32 `[batch]`.
        guidance: w, float32 `[batch]`.
    """

    noise: jax.Array
    index: jax.Array
    guidance: jax.Array


def draw_consistency(
    key: jax.Array, shape: tuple[int, ...], config: ConsistencyConfig
) -> ConsistencyDraws:
    """Draws noise, timesteps and strengths.

    Args:
        key: the same key gives the same numbers on any number of devices.
        shape: of the latents, `(batch, frames, height, width, channels)`.
        config: for the ranges.
    """
    noise_key, index_key, guidance_key = jax.random.split(key, 3)
    return ConsistencyDraws(
        jax.random.normal(noise_key, shape, jnp.float32),
        jax.random.randint(index_key, shape[:1], 0, config.num_ddim_timesteps),
        jax.random.uniform(guidance_key, shape[:1], minval=config.w_min, maxval=config.w_max),
    )


@dataclasses.dataclass(frozen=True)
class _Jumps:
    """What a model's output m means at some timesteps: D = sample x + output m, float32 [steps]."""

    timesteps: np.ndarray
    sample: np.ndarray
    output: np.ndarray

    @classmethod
    def at(cls, timesteps: np.ndarray, scheduler: Scheduler, scaling: float) -> "_Jumps":
        of_sample, of_output = denoised_weights(
            scheduler.prediction_type, *_levels(scheduler, timesteps)
        )
        scaled = timesteps * scaling
        radius = scaled**2 + SIGMA_DATA**2
        skip, out = SIGMA_DATA**2 / radius, scaled / np.sqrt(radius)
        return cls(timesteps, skip + out * of_sample, out * of_output)

    def __call__(self, model: Any, x: jax.Array, index: jax.Array, text: Arrays) -> jax.Array:
        output = predict(model, x, jnp.asarray(self.timesteps)[index], text)
        return _column(self.sample, index) * x + _column(self.output, index) * output


def consistency_loss(
    student: Any,
    teacher: Any,
    target: Any,
    scheduler: Scheduler,
    config: ConsistencyConfig,
    latents: jax.Array,
    text: Arrays,
    draws: ConsistencyDraws,
) -> tuple[jax.Array, dict[str, Any]]:
    """The loss of a batch.

    Args:
        student: a UNet, or what is called like one.
        teacher: likewise; no gradient passes through it.
        target: likewise.
        scheduler: the noise schedule and what the UNets predict.
        config: how it is distilled.
        latents: scaled, float32 `[batch, frames, height, width, channels]`.
        text: `hidden` `[batch, tokens, channels]`, `pooled` `[batch, text_channels]`, `time_ids`
            `[batch, 6]`, and `empty_hidden`, `empty_pooled` `[1, ...]`, what guidance leads away
            from.
        draws: noise, timesteps and strengths.

    Returns:
        What `diffusion_loss` returns.

    Raises:
        HotshotError: the schedule ends without signal, and the model predicts noise; or it has
            fewer timesteps than the teacher takes steps.
    """
    stride = scheduler.num_train_timesteps // config.num_ddim_timesteps
    if stride < 1:
        raise HotshotError(
            f"`num_ddim_timesteps` is {config.num_ddim_timesteps}, and the noise schedule has "
            f"{scheduler.num_train_timesteps} timesteps; give fewer."
        )
    starts = np.arange(1, config.num_ddim_timesteps + 1) * stride - 1
    ends = np.maximum(starts - stride, 0)
    if scheduler.prediction_type == "epsilon" and not _levels(scheduler, starts)[0].all():
        raise HotshotError(
            "The noise schedule leaves no signal at its last timestep (rescale_betas_zero_snr), "
            "where a model that predicts noise cannot be distilled."
        )
    start, end = (_Jumps.at(t, scheduler, config.timestep_scaling_factor) for t in (starts, ends))
    noisy = scheduler.add_noise(latents, draws.noise, jnp.asarray(starts)[draws.index])
    found = start(student, noisy, draws.index, text)
    following = _guided_step(teacher, noisy, scheduler, starts, ends, text, draws)
    wanted = end(target, following, draws.index, text)
    error = found.astype(jnp.float32) - jax.lax.stop_gradient(wanted).astype(jnp.float32)
    if config.loss == "huber":
        values = jnp.sqrt(jnp.square(error) + config.huber_c**2) - config.huber_c
    else:
        values = jnp.square(error)
    losses = mean_of_samples(values)
    timesteps = jnp.asarray(starts)[draws.index]
    return losses.mean(), by_quarter(losses, timesteps, scheduler.num_train_timesteps)


def predict(model: Any, x: jax.Array, timesteps: jax.Array, text: Arrays) -> jax.Array:
    """What a UNet finds in noisy clips; without temporal layers where they are single frames."""
    return model(
        x,
        timesteps.astype(jnp.float32),
        text["hidden"],
        text["pooled"],
        text["time_ids"],
        enable_temporal_attentions=x.shape[1] > 1,
    )


def _guided_step(
    teacher: Any,
    noisy: jax.Array,
    scheduler: Scheduler,
    starts: np.ndarray,
    ends: np.ndarray,
    text: Arrays,
    draws: ConsistencyDraws,
) -> jax.Array:
    """The clips one DDIM step of the teacher further."""
    count = len(noisy)
    # Both halves in one call, so that the program has the teacher once.
    both = {
        "hidden": _with_empty(text["hidden"], text["empty_hidden"]),
        "pooled": _with_empty(text["pooled"], text["empty_pooled"]),
        "time_ids": jnp.concatenate([text["time_ids"]] * 2),
    }
    timesteps = jnp.asarray(starts)[draws.index]
    outputs = predict(teacher, jnp.concatenate([noisy] * 2), jnp.tile(timesteps, 2), both)
    with_text, without = outputs[:count], outputs[count:]
    strength = draws.guidance[:, None, None, None, None]
    # Clean clip and noise are linear in the output, so that it can be guided in their place.
    output = with_text + strength * (with_text - without)
    before, after = _levels(scheduler, starts), _levels(scheduler, ends)
    weights = [
        denoised_weights(scheduler.prediction_type, *before),
        noise_weights(scheduler.prediction_type, *before),
    ]
    of_sample, of_output = (
        sum(level * weight for level, weight in zip(after, part, strict=True))
        for part in zip(*weights, strict=True)
    )
    return _column(of_sample, draws.index) * noisy + _column(of_output, draws.index) * output


def _with_empty(texts: jax.Array, empty: jax.Array) -> jax.Array:
    return jnp.concatenate([texts, jnp.broadcast_to(empty, texts.shape).astype(texts.dtype)])


def _levels(scheduler: Scheduler, timesteps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    alphas = scheduler.noise_schedule.alphas_cumprod[timesteps].astype(np.float64)
    return np.sqrt(alphas), np.sqrt(1 - alphas)


def _column(table: np.ndarray, index: jax.Array) -> jax.Array:
    return jnp.asarray(table, jnp.float32)[index][:, None, None, None, None]
