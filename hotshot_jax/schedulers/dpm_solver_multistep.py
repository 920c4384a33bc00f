"""DPM-Solver++ multistep, with its SDE variant and the older DPM-Solver (Lu et al. 2022).

With x = α x_0 + σ ε, λ = log(α/σ) and h = λ_t - λ_s from the level s of this call to the next t,
a step is (arXiv:2211.01095 for the first two, arXiv:2206.00927 for the ODE of the last two)

    dpmsolver++      x' = σ_t/σ_s x         - α_t (e^-h - 1) D
    sde-dpmsolver++  x' = σ_t/σ_s e^-h x    + α_t (1 - e^-2h) D  + σ_t sqrt(1 - e^-2h) z
    dpmsolver        x' = α_t/α_s x         - σ_t (e^h - 1) D
    sde-dpmsolver    x' = α_t/α_s x         - 2 σ_t (e^h - 1) D  + σ_t sqrt(e^2h - 1) z

where D is a prediction of x_0 (of ε for the older two). The first order takes D = m_0, the newest
prediction; higher orders extrapolate with divided differences of earlier predictions, either with
the "midpoint" weight 1/2 or the exact "heun" weight. All of it is linear in x, z and at most three
predictions, so a row holds five weights, and a call of lower order has zeros among them.

The SDE variants draw noise in every call, in the last one too.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.schedulers.base import Column, Schedule, float32, require_noise, zeros_like_sample
from hotshot_jax.schedulers.configuration import option, unsupported
from hotshot_jax.schedulers.families import MultistepScheduler
from hotshot_jax.schedulers.numbers import (
    alpha_and_sigma,
    denoised_weights,
    exponential_sigmas,
    noise_weights,
    sigma_to_timestep,
    training_sigmas,
)

ALGORITHMS = ("dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver")
FEW_STEPS = 15
"""Runs shorter than this lower the order of their last two calls."""


class DPMSolverRow(NamedTuple):
    """Prediction p from (x, m); x' = sample · x + Σ_k predictions[k] · p_k + noise · z."""

    predicted_sample: Column
    predicted_output: Column
    sample: Column
    predictions: Column
    noise: Column


class DPMSolverState(NamedTuple):
    """The two predictions before this one, newest first; float32, the shape of the sample."""

    predictions: tuple[jax.Array, jax.Array]


@dataclasses.dataclass(frozen=True)
class DPMSolverMultistepScheduler(MultistepScheduler):
    """DPM-Solver++; see the module docstring.

    Attributes:
        algorithm_type: see the module docstring; only the ++ variants can end at noise level 0.
        solver_type: weight of the second order.
        euler_at_final: always end with the first order.
        use_lu_lambdas: noise levels in equal steps of λ.
        lambda_min_clipped: leave out timesteps whose λ is lower (for squaredcos_cap_v2).
    """

    solver_order: int = option(2, choices=(1, 2, 3))
    algorithm_type: str = option("dpmsolver++", choices=ALGORITHMS, aliases={"deis": "dpmsolver++"})
    solver_type: str = option(
        "midpoint",
        choices=("midpoint", "heun"),
        aliases={"logrho": "midpoint", "bh1": "midpoint", "bh2": "midpoint"},
    )
    euler_at_final: bool = option(False)
    use_lu_lambdas: bool = option(False)
    lambda_min_clipped: float = option(-math.inf)

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        if not self._predicts_denoised and self.final_sigmas_type == "zero":
            expected = f"'sigma_min' with algorithm_type={self.algorithm_type!r}"
            raise unsupported(owner, "final_sigmas_type", "zero", expected)
        if self.algorithm_type == "sde-dpmsolver" and self.solver_order == 3:
            raise unsupported(
                owner, "solver_order", 3, "1 or 2 with algorithm_type='sde-dpmsolver'"
            )
        other = super()._designed_key
        if self.use_lu_lambdas and other is not None:
            raise unsupported(owner, "use_lu_lambdas", True, f"false with {other}=True")

    @property
    def stochastic(self) -> bool:
        """Noise in every call of the SDE variants."""
        return self.algorithm_type.startswith("sde-")

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are int64."""
        self._check_steps(num_inference_steps, first_step)
        training = training_sigmas(self.noise_schedule)
        clipped = np.searchsorted(-np.log(training[::-1]), self.lambda_min_clipped)
        last = self.num_train_timesteps - int(clipped)
        if last < 1:
            value, lowest = self.lambda_min_clipped, -np.log(training[0])
            raise unsupported(
                type(self).__name__, "lambda_min_clipped", value, f"a number below {lowest:.3f}"
            )
        timesteps = self._solver_timesteps(num_inference_steps, last)
        rounds = self.beta_schedule != "squaredcos_cap_v2" and self._designed_key in (
            "use_karras_sigmas",
            "use_lu_lambdas",
        )
        levels = self._designed_sigmas(training[-1], training[0], num_inference_steps)
        if self.use_lu_lambdas:
            levels = exponential_sigmas(training[-1], training[0], num_inference_steps)
        if levels is not None:
            fractional = sigma_to_timestep(levels, np.log(training))
            timesteps = (fractional.round() if rounds else fractional).astype(np.int64)
        return self._tables(timesteps, levels, first_step)

    @property
    def _predicts_denoised(self) -> bool:
        return self.algorithm_type.endswith("++")

    @property
    def _designed_key(self) -> str | None:
        return "use_lu_lambdas" if self.use_lu_lambdas else super()._designed_key

    def _tables(self, timesteps: np.ndarray, levels: np.ndarray | None, first: int = 0) -> Schedule:
        training = training_sigmas(self.noise_schedule)
        if levels is None:
            levels = np.interp(timesteps, np.arange(len(training)), training)
        final = training[0] if self.final_sigmas_type == "sigma_min" else 0.0
        sigmas = np.append(levels, final).astype(np.float32)
        self._require_distinct(sigmas[:-1])
        alpha, sigma = alpha_and_sigma(sigmas)
        weights = denoised_weights if self._predicts_denoised else noise_weights
        of_sample, of_output = weights(self.prediction_type, alpha[:-1], sigma[:-1])
        calls = len(timesteps)
        updates = [self._update(sigmas, i, self._order(i, calls, first)) for i in range(calls)]
        sample, predictions, noise = zip(*updates, strict=True)
        rows = DPMSolverRow(
            predicted_sample=of_sample,
            predicted_output=of_output,
            sample=np.array(sample),
            predictions=np.array(predictions),
            noise=np.array(noise),
        )
        return self._make_schedule(timesteps, rows, self.stochastic, sigmas, first_call=first)

    def _order(self, i: int, calls: int, first: int) -> int:
        few = self.lower_order_final and calls < FEW_STEPS
        order = min(self.solver_order, max(i - first, 0) + 1)
        if i == calls - 1 and (self.euler_at_final or few or self.final_sigmas_type == "zero"):
            return 1
        return min(order, 2) if i == calls - 2 and few else order

    def _update(self, sigmas: np.ndarray, i: int, order: int) -> tuple[float, np.ndarray, float]:
        """Weights of x, of the predictions (newest first) and of the noise in call i."""
        levels = sigmas.astype(np.float64)
        alphas, spreads = alpha_and_sigma(levels)
        with np.errstate(divide="ignore"):
            lambdas = -np.log(levels)
        h = lambdas[i + 1] - lambdas[i]
        signal_ratio, noise_ratio = alphas[i + 1] / alphas[i], spreads[i + 1] / spreads[i]
        algorithm = self.algorithm_type
        if algorithm == "dpmsolver++":
            sample, scale, exponent, noise = noise_ratio, -alphas[i + 1], -h, 0.0
        elif algorithm == "sde-dpmsolver++":
            sample, scale, exponent = noise_ratio * math.exp(-h), -alphas[i + 1], -2 * h
            noise = spreads[i + 1] * math.sqrt(max(-math.expm1(-2 * h), 0.0))
        elif algorithm == "dpmsolver":
            sample, scale, exponent, noise = signal_ratio, -spreads[i + 1], h, 0.0
        else:
            sample, scale, exponent = signal_ratio, -2 * spreads[i + 1], h
            noise = spreads[i + 1] * math.sqrt(max(math.expm1(2 * h), 0.0))

        newest = scale * math.expm1(exponent)
        predictions = np.array([newest, 0.0, 0.0])
        if order == 1 or h == 0:
            return sample, predictions, noise

        # Divided differences of the predictions, as weights of (m_0, m_1, m_2).
        r0 = (lambdas[i] - lambdas[i - 1]) / h
        first = np.array([1.0, -1.0, 0.0]) / r0
        exact = scale * (math.expm1(exponent) / exponent - 1.0)
        if order == 2:
            weight = newest / 2 if self.solver_type == "midpoint" else exact
            return sample, predictions + weight * first, noise
        r1 = (lambdas[i - 1] - lambdas[i - 2]) / h
        second = (first - np.array([0.0, 1.0, -1.0]) / r1) / (r0 + r1)
        # The sign of one half is diffusers', which for the SDE is not that of the expansion.
        half = -0.5 if algorithm == "sde-dpmsolver++" else 0.5
        curvature = scale * ((math.expm1(exponent) - exponent) / exponent**2 - half)
        predictions = predictions + exact * (first + r0 * second) + curvature * second
        return sample, predictions, noise

    def init_state(self, sample: ArrayLike) -> DPMSolverState:
        """No predictions yet."""
        return DPMSolverState((zeros_like_sample(sample), zeros_like_sample(sample)))

    def step(
        self,
        row: DPMSolverRow,
        state: DPMSolverState,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, DPMSolverState]:
        """One solver step; see `Scheduler.step`."""
        x = float32(sample)
        prediction = row.predicted_sample * x + row.predicted_output * float32(model_output)
        following = row.sample * x
        for k, known in enumerate((prediction, *state.predictions)):
            following += row.predictions[k] * known
        if self.stochastic:
            following += row.noise * require_noise(noise)
        return following, DPMSolverState((prediction, state.predictions[0]))
