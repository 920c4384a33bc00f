"""From what the network predicts to x_0 or ε, as weights of a linear combination.

With x = α x_0 + σ ε and α² + σ² = 1:

    epsilon       x_0 = (x - σ m)/α      ε = m
    v_prediction  x_0 = α x - σ m        ε = α m + σ x      (arXiv:2202.00512, appendix D)
    sample        x_0 = m                ε = (x - α m)/σ

The weights are worked out in float64 on the host, so the compiled step needs no branch.
"""

import numpy as np

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
