"""Which training timesteps a run visits: table 2 of Lin et al. 2023 (arXiv:2305.08891).

"linspace" covers the whole range with both ends, "leading" walks up from 0 in whole strides (and is
shifted by `steps_offset`), "trailing" walks down from the last timestep.

One deviation from diffusers: its "trailing" adds a call at timestep -1 for those numbers of steps
whose stride does not sum up exactly in float64 (61, 103, 121, ...). Here it never does.
"""

import numpy as np


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
