"""The numbers that tables of a run are made of: timesteps, noise levels, weights of predictions.

Timesteps, table 2 of Lin et al. 2023 (arXiv:2305.08891): "linspace" covers the whole range with
both ends, "leading" walks up from 0 in whole strides (and is shifted by `steps_offset`), "trailing"
walks down from the last timestep. One deviation from diffusers: its "trailing" adds a call at
timestep -1 for those numbers of steps whose stride does not sum up exactly in float64 (61, 103,
121, ...). Here it never does.

Noise levels in the variance-exploding picture, x = x_0 + σ ε. Karras: equal steps in σ^(1/7),
equation 5 of Karras et al. 2022 (arXiv:2206.00364). Exponential: equal steps in log σ. Beta:
quantiles of a Beta(0.6, 0.6) distribution, Lee et al. 2024 (arXiv:2407.12173). All are float64 from
the largest level to the smallest.

Predictions, as weights of a linear combination that are worked out in float64 on the host, so that
the compiled step needs no branch. With x = α x_0 + σ ε and α² + σ² = 1:

    epsilon       x_0 = (x - σ m)/α      ε = m
    v_prediction  x_0 = α x - σ m        ε = α m + σ x      (arXiv:2202.00512, appendix D)
    sample        x_0 = m                ε = (x - α m)/σ
"""

import numpy as np

from hotshot_jax.schedulers.noise_schedule import SMALLEST_ALPHA_CUMPROD, NoiseSchedule


def evenly_spaced(spacing: str, steps: int, train_timesteps: int, offset: int) -> np.ndarray:
    """Timesteps of the one-step solvers, from noise to data.

    Args:
        spacing: one of `choices.SPACINGS`.
        steps: number of steps.
        train_timesteps: length of the training schedule.
        offset: added to "leading" timesteps.

    Returns:
        float64 [steps], descending; whole numbers except for "linspace".
    """
    if spacing == "linspace":
        return np.linspace(0, train_timesteps - 1, steps)[::-1]
    if spacing == "leading":
        return (np.arange(steps) * float(train_timesteps // steps))[::-1] + offset
    return _trailing(train_timesteps, train_timesteps / steps)


def solver_spaced(
    spacing: str, steps: int, train_timesteps: int, offset: int, last: int
) -> np.ndarray:
    """Timesteps of the multistep solvers, which leave out the point at time 0.

    Args:
        spacing: one of `choices.SPACINGS`.
        steps: number of steps.
        train_timesteps: length of the training schedule.
        offset: added to "leading" timesteps.
        last: number of training timesteps that are used (fewer when λ is clipped).

    Returns:
        int64 [steps], descending ("trailing" with clipped λ has fewer).
    """
    if spacing == "linspace":
        points = np.linspace(0, last - 1, steps + 1)
    elif spacing == "leading":
        points = np.arange(steps + 1, dtype=np.float64) * (last // (steps + 1)) + offset
    else:
        return _trailing(last, train_timesteps / steps).astype(np.int64)
    return points.round()[:0:-1].astype(np.int64)


def _trailing(last: int, stride: float) -> np.ndarray:
    counts = np.arange(last, 0, -stride).round()
    return counts[counts >= 1] - 1


KARRAS_RHO = 7.0
BETA_SHAPE = 0.6


def training_sigmas(schedule: NoiseSchedule) -> np.ndarray:
    """Noise levels of the training timesteps; float32 [train_timesteps].

    The infinite level of a zero terminal SNR becomes 4096, as in diffusers.
    """
    alphas = schedule.alphas_cumprod
    if alphas[-1] == 0:
        alphas = np.append(alphas[:-1], np.float32(SMALLEST_ALPHA_CUMPROD))
    return np.sqrt((np.float32(1) - alphas) / alphas)


def init_noise_sigma(sigmas: np.ndarray, spacing: str) -> float:
    """Standard deviation of the first sample, from a run's float32 levels.

    Leading spacing starts below the last training timestep, where the signal's own variance is
    still part of the sample.
    """
    largest = sigmas.max()
    return float(np.sqrt(largest**2 + np.float32(1)) if spacing == "leading" else largest)


def karras_sigmas(largest: float, smallest: float, steps: int) -> np.ndarray:
    """Equal steps in the seventh root of σ; float64 [steps]."""
    ramp = np.linspace(0, 1, steps)
    high, low = largest ** (1 / KARRAS_RHO), smallest ** (1 / KARRAS_RHO)
    return (high + ramp * (low - high)) ** KARRAS_RHO


def exponential_sigmas(largest: float, smallest: float, steps: int) -> np.ndarray:
    """Equal steps in log σ; float64 [steps]."""
    return np.exp(np.linspace(np.log(largest), np.log(smallest), steps))


def beta_sigmas(largest: float, smallest: float, steps: int) -> np.ndarray:
    """Quantiles of the Beta(0.6, 0.6) distribution between both ends; float64 [steps]."""
    import scipy.special

    quantiles = scipy.special.betaincinv(BETA_SHAPE, BETA_SHAPE, 1 - np.linspace(0, 1, steps))
    return smallest + quantiles * (largest - smallest)


def sigma_to_timestep(sigmas: np.ndarray, log_training_sigmas: np.ndarray) -> np.ndarray:
    """The timestep at which the training schedule has a noise level, linear in log σ.

    Args:
        sigmas: float64 [steps].
        log_training_sigmas: float32 [train_timesteps], increasing.

    Returns:
        float64 [steps], in 0 .. train_timesteps - 1.
    """
    log_sigmas = np.log(np.maximum(sigmas, 1e-10))
    below = np.searchsorted(log_training_sigmas, log_sigmas, side="right") - 1
    below = below.clip(0, len(log_training_sigmas) - 2)
    low, high = log_training_sigmas[below], log_training_sigmas[below + 1]
    weight = ((low - log_sigmas) / (low - high)).clip(0, 1)
    return (1 - weight) * below + weight * (below + 1)


def alpha_and_sigma(sigmas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(α, σ) with α² + σ² = 1 and σ/α the given noise level, both float64."""
    levels = np.asarray(sigmas, np.float64)
    alpha = 1 / np.sqrt(levels**2 + 1)
    return alpha, levels * alpha


Weights = tuple[np.ndarray, np.ndarray]


def denoised_weights(prediction_type: str, alpha: np.ndarray, sigma: np.ndarray) -> Weights:
    """Weights (of x, of the model output m) that give x_0; α must not be 0 for epsilon."""
    if prediction_type == "epsilon":
        return 1 / alpha, -sigma / alpha
    if prediction_type == "v_prediction":
        return alpha, -sigma
    return np.zeros_like(alpha), np.ones_like(alpha)


def noise_weights(prediction_type: str, alpha: np.ndarray, sigma: np.ndarray) -> Weights:
    """Weights (of x, of the model output m) that give ε; σ must not be 0 for sample."""
    if prediction_type == "epsilon":
        return np.zeros_like(alpha), np.ones_like(alpha)
    if prediction_type == "v_prediction":
        return sigma, alpha
    return 1 / sigma, -alpha / sigma
