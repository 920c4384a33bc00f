"""The forward diffusion process."""

from collections.abc import Iterator

import numpy as np

from benchmarks.parity_cases.case import SINGLE_MODULE, Case, Result, compare
from hotshot_jax.schedulers import make_scheduler


def matches(case: Case) -> bool:
    """Whether the case adds noise and nothing more."""
    return "Scheduler.add_noise(" in case.call


def run(case: Case) -> Iterator[Result]:
    """Compares the tables, noisy latents, velocities and signal-to-noise ratios."""
    entry = case.description["scheduler"]
    scheduler = make_scheduler(entry["class"], entry["config"])
    timesteps = case["timesteps"].astype(np.int32)
    latents, noise = case["latents"], case["noise"]
    for name, got in {
        "betas": scheduler.noise_schedule.betas,
        "alphas_cumprod": scheduler.noise_schedule.alphas_cumprod,
        "noisy": scheduler.add_noise(latents, noise, timesteps),
        "velocity": scheduler.velocity(latents, noise, timesteps),
        "snr": scheduler.snr(timesteps),
    }.items():
        if name in case:
            yield compare(name, got, case[name], SINGLE_MODULE)
