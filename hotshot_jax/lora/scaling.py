"""How strongly a LoRA was trained to act: alpha, rank, and who says so."""

from __future__ import annotations

import math

from hotshot_jax.errors import HotshotError
from hotshot_jax.lora.adapter_config import AdapterConfig
from hotshot_jax.lora.names import Module


def scaling(module: Module, rank: int, alpha: float | None, config: AdapterConfig) -> float:
    """What the product of a module's factors is multiplied by.

    Alpha is that of PEFT's configuration where there is one, else the file's own, else the rank.

    Args:
        module: the module.
        rank: inner dimension of its factors.
        alpha: what the file has for it.
        config: PEFT's configuration.

    Raises:
        HotshotError: alpha is 0 or not finite, or the configuration states another rank.
    """
    stated = config.rank(module)
    if stated is not None and stated != rank:
        raise HotshotError(
            f"{config.where}: {module} has rank {rank}, but its adapter configuration says "
            f"{stated:g}; the files do not belong together."
        )
    configured = config.alpha(module)
    alpha = alpha if configured is None else configured
    if alpha is not None and not math.isfinite(alpha):
        raise HotshotError(f"{config.where}: alpha of {module} is {alpha}; the file is damaged.")
    if alpha is None:
        return 1.0
    if alpha == 0:
        # Some tools read it as the rank, others as no change at all.
        raise HotshotError(
            f"{config.where}: alpha of {module} is 0, which tools read in two ways; store "
            "the alpha that it was trained with, or none for alpha = rank."
        )
    divisor = math.sqrt(rank) if config.rank_stabilised(module) else rank
    return alpha / divisor
