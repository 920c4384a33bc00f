"""UniPC multistep (Zhao et al. 2023, arXiv:2302.04867), the B(h) versions.

In terms of λ = log(α/σ) and h = λ_t - λ_s, with η = -h when predicting x_0 (+h for ε), predictor
and corrector of order p are

    x_t = a x_s - c (e^η - 1) m_0 - c B Σ_k ρ_k (m_k - m_0)/r_k

where m_0 is the newest prediction, m_k the k-th before it, r_k = (λ_k - λ_s)/h, (a, c) is
(σ_t/σ_s, α_t) for x_0 and (α_t/α_s, σ_t) for ε, and B = η ("bh1") or e^η - 1 ("bh2"). The ρ_k solve
the order conditions Σ_k r_k^(i-1) ρ_k = i! η φ_(i+1)(η)/B, with φ_1(η) = (e^η - 1)/η and
φ_(i+1)(η) = (φ_i(η) - 1/i!)/η. The corrector has one difference more, with the prediction at x_t
itself (r = 1), so it can only run in the next call: a call first corrects its sample, then predicts
the next one from there. No noise is drawn.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import jax
import numpy as np
from jax.typing import ArrayLike

from hotshot_jax.schedulers.base import (
    DYNAMIC_THRESHOLDING,
    Column,
    Schedule,
    float32,
    zeros_like_sample,
)
from hotshot_jax.schedulers.configuration import option, unsupported
from hotshot_jax.schedulers.families import MultistepScheduler
from hotshot_jax.schedulers.numbers import (
    alpha_and_sigma,
    denoised_weights,
    noise_weights,
    sigma_to_timestep,
    training_sigmas,
)


class UniPCRow(NamedTuple):
    """Prediction p_0 from (x, m), with p_1, p_2, ... the earlier ones.

    corrected x = kept · x + last · x_before + Σ_k corrector[k] · p_k   (k = 0 .. solver_order)
    x' = sample · corrected x + Σ_k predictor[k] · p_k                  (k = 0 .. solver_order - 1)
    """

    predicted_sample: Column
    predicted_output: Column
    kept: Column
    last: Column
    corrector: Column
    sample: Column
    predictor: Column


class UniPCState(NamedTuple):
    """Solver history; every array is float32 and has the sample's shape.

    Attributes:
        predictions: the solver_order predictions before this one, newest first.
        sample: the corrected sample of the call before.
    """

    predictions: tuple[jax.Array, ...]
    sample: jax.Array


@dataclasses.dataclass(frozen=True)
class UniPCMultistepScheduler(MultistepScheduler):
    """UniPC; see the module docstring.

    Attributes:
        predict_x0: work on predictions of x_0, otherwise of ε.
        solver_type: B(h).
        disable_corrector: indices of calls whose result is not corrected.
    """

    solver_type: str = option(
        "bh2",
        choices=("bh1", "bh2"),
        aliases={"midpoint": "bh2", "heun": "bh2", "logrho": "bh2"},
    )
    predict_x0: bool = option(True)
    disable_corrector: tuple[int, ...] = option(())

    refused: ClassVar[Mapping[str, str]] = {
        "thresholding": DYNAMIC_THRESHOLDING,
        "use_dynamic_shifting": "it belongs to flow matching",
        "solver_p": "the predictor is UniP",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        owner = type(self).__name__
        disabled = self.disable_corrector
        if not isinstance(disabled, tuple) or not all(isinstance(i, int) for i in disabled):
            raise unsupported(owner, "disable_corrector", disabled, "a list of whole numbers")
        if self.final_sigmas_type == "zero":
            if not self.predict_x0:
                raise unsupported(owner, "predict_x0", False, "true with final_sigmas_type='zero'")
            if self.solver_order > 1 and not self.lower_order_final:
                expected = "true with final_sigmas_type='zero' and solver_order above 1"
                raise unsupported(owner, "lower_order_final", False, expected)

    def schedule(self, num_inference_steps: int, first_step: int = 0) -> Schedule:
        """Tables for a run; see `Scheduler.schedule`. Timesteps are int64."""
        self._check_steps(num_inference_steps, first_step)
        training = training_sigmas(self.noise_schedule)
        timesteps = self._solver_timesteps(num_inference_steps, self.num_train_timesteps)
        levels = self._designed_sigmas(training[-1], training[0], num_inference_steps)
        if levels is not None:
            fractional = sigma_to_timestep(levels, np.log(training))
            whole = fractional.round() if self.use_karras_sigmas else fractional
            timesteps = whole.astype(np.int64)
        return self._tables(timesteps, levels, first_step)

    def _tables(self, timesteps: np.ndarray, levels: np.ndarray | None, first: int = 0) -> Schedule:
        training = training_sigmas(self.noise_schedule)
        smallest = training[0] if levels is None else levels[-1]
        if levels is None:
            levels = np.interp(timesteps, np.arange(len(training)), training)
        final = smallest if self.final_sigmas_type == "sigma_min" else 0.0
        sigmas = np.append(levels, final).astype(np.float32)
        self._require_distinct(sigmas[:-1])
        rows = self._rows(sigmas.astype(np.float64), first)
        return self._make_schedule(timesteps, rows, False, sigmas, first_call=first)

    def _rows(self, levels: np.ndarray, first: int) -> UniPCRow:
        calls, order = len(levels) - 1, self.solver_order
        orders = [min(order, max(i - first, 0) + 1) for i in range(calls)]
        if self.lower_order_final:
            orders = [min(each, calls - i) for i, each in enumerate(orders)]
        alpha, sigma = alpha_and_sigma(levels[:-1])
        weights = denoised_weights if self.predict_x0 else noise_weights
        of_sample, of_output = weights(self.prediction_type, alpha, sigma)
        sample, kept, last = np.zeros(calls), np.ones(calls), np.zeros(calls)
        predictor, corrector = np.zeros((calls, order)), np.zeros((calls, order + 1))
        for i, this_order in enumerate(orders):
            sample[i], used = self._update(levels, i, this_order, correct=False)
            predictor[i, :this_order] = used
            if i > first and i - 1 not in self.disable_corrector:
                kept[i] = 0.0
                last[i], used = self._update(levels, i - 1, orders[i - 1], correct=True)
                corrector[i, : orders[i - 1] + 1] = used
        return UniPCRow(of_sample, of_output, kept, last, corrector, sample, predictor)

    def _update(
        self, levels: np.ndarray, i: int, order: int, correct: bool
    ) -> tuple[float, np.ndarray]:
        """Weights of x and of the predictions (newest first) from level i to level i + 1.

        The corrector's first weight is that of the prediction at level i + 1.
        """
        alphas, spreads = alpha_and_sigma(levels)
        with np.errstate(divide="ignore"):
            lambdas = -np.log(levels)
        h = lambdas[i + 1] - lambdas[i]
        if self.predict_x0:
            sample, scale, exponent = spreads[i + 1] / spreads[i], alphas[i + 1], -h
        else:
            sample, scale, exponent = alphas[i + 1] / alphas[i], spreads[i + 1], h
        growth = math.expm1(exponent)
        used = np.zeros(order + 1)
        used[1] = -scale * growth
        unknowns = order if correct else order - 1
        if unknowns == 0 or h == 0:
            return sample, used if correct else used[1:]

        bound = exponent if self.solver_type == "bh1" else growth

        # One row a difference (m_k - m_0)/r_k, in weights of (m_at_t, m_0, m_1, ...).
        differences = np.zeros((order, order + 1))
        ratios = np.ones(order)
        for k in range(1, order):
            ratios[k - 1] = (lambdas[i - k] - lambdas[i]) / h
            differences[k - 1, [1, k + 1]] = np.array([-1.0, 1.0]) / ratios[k - 1]
        differences[order - 1, :2] = [1.0, -1.0]

        rho = _rho(ratios[:unknowns], exponent, bound)
        used -= scale * bound * (rho @ differences[:unknowns])
        return sample, used if correct else used[1:]

    def init_state(self, sample: ArrayLike) -> UniPCState:
        """No predictions yet."""
        predictions = tuple(zeros_like_sample(sample) for _ in range(self.solver_order))
        return UniPCState(predictions, zeros_like_sample(sample))

    def step(
        self,
        row: UniPCRow,
        state: UniPCState,
        model_output: ArrayLike,
        sample: ArrayLike,
        noise: ArrayLike | None = None,
    ) -> tuple[jax.Array, UniPCState]:
        """Correct this call's sample, then predict the next; see `Scheduler.step`."""
        x = float32(sample)
        prediction = row.predicted_sample * x + row.predicted_output * float32(model_output)
        known = (prediction, *state.predictions)
        corrected = row.kept * x + row.last * state.sample
        for k, p in enumerate(known):
            corrected += row.corrector[k] * p
        following = row.sample * corrected
        for k, p in enumerate(known[:-1]):
            following += row.predictor[k] * p
        return following, UniPCState(known[:-1], corrected)


def _rho(ratios: np.ndarray, exponent: float, bound: float) -> np.ndarray:
    """Weights of the differences with the given r_k: the solution of the order conditions."""
    if len(ratios) == 1:
        # The paper's shortcut for one difference, which keeps the order.
        return np.array([0.5])
    phi = math.expm1(exponent) / exponent - 1
    factorial = 1
    right = []
    for i in range(1, len(ratios) + 1):
        right.append(phi * factorial / bound)
        factorial *= i + 1
        phi = phi / exponent - 1 / factorial
    powers = ratios[None, :] ** np.arange(len(ratios))[:, None]
    solution: np.ndarray = np.linalg.solve(powers, np.array(right))
    return solution
