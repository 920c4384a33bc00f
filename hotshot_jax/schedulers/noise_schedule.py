"""The forward process that all schedulers share, and the training side built on it.

DDPM (Ho et al. 2020, arXiv:2006.11239): x_t = sqrt(ā_t) x_0 + sqrt(1 - ā_t) ε with
ā_t = Π_{s<=t} (1 - β_s). The velocity of v-prediction is v = sqrt(ā_t) ε - sqrt(1 - ā_t) x_0
(Salimans and Ho 2022, arXiv:2202.00512), and the signal-to-noise ratio ā_t / (1 - ā_t). Zero
terminal SNR rescaling is algorithm 1 of Lin et al. 2023 (arXiv:2305.08891).

The tables are float32 and every operation is rounded where PyTorch rounds it, so that a scheduler
starts from the numbers of the PyTorch one: the tail of a rescaled schedule has few digits to spare.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

BETA_SCHEDULES = ("linear", "scaled_linear", "squaredcos_cap_v2", "exp", "laplace", "sigmoid")

# The smallest float16 subnormal: the SNR that sigma-based samplers put in place of zero, whose
# sigma would be infinite.
SMALLEST_ALPHA_CUMPROD = 2.0**-24


def make_betas(beta_schedule: str, start: float, end: float, count: int) -> np.ndarray:
    """β_t for all training timesteps.

    Args:
        beta_schedule: one of `BETA_SCHEDULES`. "linear" and "scaled_linear" (linear in sqrt β) run
            from start to end, "sigmoid" between them; the others ignore both.
        start: first β.
        end: last β.
        count: number of training timesteps.

    Returns:
        float32 [count].
    """
    if beta_schedule == "linear":
        return _linspace(start, end, count)
    if beta_schedule == "scaled_linear":
        return _linspace(math.sqrt(start), math.sqrt(end), count) ** 2
    if beta_schedule == "sigmoid":
        logits = _linspace(-6.0, 6.0, count)
        one = np.float32(1)
        return (one / (one + np.exp(-logits)) * np.float32(end - start) + np.float32(start)).astype(
            np.float32
        )
    edges = [_ALPHA_BARS[beta_schedule](i / count) for i in range(count + 1)]
    betas = [min(1 - after / before, 0.999) for before, after in itertools.pairwise(edges)]
    return np.asarray(betas, np.float32)


def rescale_zero_terminal_snr(betas: np.ndarray) -> np.ndarray:
    """Shift and scale sqrt(ā_t) so that it ends at 0 and its first value stays.

    Args:
        betas: float32 [count].

    Returns:
        float32 [count]; the last is 1.
    """
    root = np.sqrt(_cumulative_product(np.float32(1) - betas))
    first, last = root[0], root[-1]
    root = (root - last) * (first / (first - last))
    squared = root * root
    return np.float32(1) - np.concatenate([squared[:1], squared[1:] / squared[:-1]])


@dataclasses.dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """β_t and ā_t of the training timesteps.

    Attributes:
        betas: float32 [train_timesteps].
        alphas_cumprod: float32 [train_timesteps].
    """

    betas: np.ndarray
    alphas_cumprod: np.ndarray

    @classmethod
    def from_betas(cls, betas: np.ndarray) -> "NoiseSchedule":
        """Accumulate ā_t from float32 β_t."""
        return cls(betas, _cumulative_product(np.float32(1) - betas))

    def add_noise(self, sample: ArrayLike, noise: ArrayLike, timesteps: ArrayLike) -> jax.Array:
        """sqrt(ā_t) x_0 + sqrt(1 - ā_t) ε.

        Args:
            sample: x_0 [batch, ...], any float dtype.
            noise: ε, same shape.
            timesteps: int [batch] or a scalar, in 0 .. train_timesteps - 1.

        Returns:
            float32, the shape of sample. A timestep past the end gives NaN.
        """
        signal, noise_level = self._levels(timesteps, jnp.ndim(sample))
        return signal * _float32(sample) + noise_level * _float32(noise)

    def velocity(self, sample: ArrayLike, noise: ArrayLike, timesteps: ArrayLike) -> jax.Array:
        """sqrt(ā_t) ε - sqrt(1 - ā_t) x_0, the target of v-prediction; arguments as `add_noise`."""
        signal, noise_level = self._levels(timesteps, jnp.ndim(sample))
        return signal * _float32(noise) - noise_level * _float32(sample)

    def snr(self, timesteps: ArrayLike) -> jax.Array:
        """ā_t / (1 - ā_t); float32, the shape of timesteps."""
        alphas = self._gather(timesteps)
        return alphas / (1 - alphas)

    def _gather(self, timesteps: ArrayLike) -> jax.Array:
        return jnp.take(
            jnp.asarray(self.alphas_cumprod),
            jnp.asarray(timesteps),
            mode="fill",
            fill_value=jnp.nan,
        )

    def _levels(self, timesteps: ArrayLike, rank: int) -> tuple[jax.Array, jax.Array]:
        alphas = self._gather(timesteps)
        alphas = alphas.reshape(alphas.shape + (1,) * (rank - alphas.ndim))
        return jnp.sqrt(alphas), jnp.sqrt(1 - alphas)


def _float32(array: ArrayLike) -> jax.Array:
    return jnp.asarray(array, jnp.float32)


def _linspace(start: float, end: float, count: int) -> np.ndarray:
    # PyTorch works from both ends towards the middle, with one rounding a value.
    first, last = np.float32(start), np.float32(end)
    if count == 1:
        return np.asarray([first])
    step = float((last - first) / np.float32(count - 1))
    index = np.arange(count)
    rising = float(first) + step * index
    falling = float(last) - step * (count - 1 - index)
    return np.where(index < count // 2, rising, falling).astype(np.float32)


def _cumulative_product(alphas: np.ndarray) -> np.ndarray:
    # PyTorch accumulates in float64 and rounds each value.
    return np.cumprod(alphas.astype(np.float64)).astype(np.float32)


def _laplace_alpha_bar(t: float) -> float:
    """Hang et al. 2024 (arXiv:2407.03297)."""
    log_snr = -0.5 * math.copysign(1, 0.5 - t) * math.log(1 - 2 * abs(0.5 - t) + 1e-6)
    snr = math.exp(log_snr)
    return math.sqrt(snr / (1 + snr))


_ALPHA_BARS: dict[str, Callable[[float], float]] = {
    # Nichol and Dhariwal 2021 (arXiv:2102.09672).
    "squaredcos_cap_v2": lambda t: math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2,
    "exp": lambda t: math.exp(-12.0 * t),
    "laplace": _laplace_alpha_bar,
}


def betas_from_list(values: Sequence[float]) -> np.ndarray:
    """float32 β_t from a configuration's `trained_betas`; empty if they are no numbers."""
    try:
        return np.asarray(values, np.float32)
    except (TypeError, ValueError):
        return np.zeros(0, np.float32)
