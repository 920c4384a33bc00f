"""What turns gradients of a run of `train.py` into updates: its flags, and what they refuse."""

import dataclasses
from typing import TYPE_CHECKING

from hotshot_jax.choices import LEARNING_RATE_SCHEDULES, OPTIMIZERS
from hotshot_jax.cli.by_group import numbers_by_group
from hotshot_jax.cli.flags import flag
from hotshot_jax.cli.train.start_settings import StartSettings
from hotshot_jax.errors import UsageError

# `--help` imports nothing heavy.
if TYPE_CHECKING:
    from hotshot_jax.cli.train.settings import TrainSettings

_OPTIMIZER = "optimiser"


@dataclasses.dataclass(frozen=True)
class OptimizerSettings(StartSettings):
    """The settings of a run's optimiser; each field is a flag of the same name."""

    learning_rate: float = flag(5e-6, "after the warm-up", float, _OPTIMIZER)
    scale_lr: bool = flag(
        False, "multiply the learning rate by devices, batch and accumulation", bool, _OPTIMIZER
    )
    learning_rate_factors: dict[str, float] | None = flag(
        None,
        "factors of it for groups of layers, such as temporal=2,resnets=0.5; 0 leaves them as "
        "they are",
        numbers_by_group,
        _OPTIMIZER,
        metavar="GROUP=NUMBER,...",
    )
    lr_scheduler: str = flag(
        "constant", "course of the learning rate", str, _OPTIMIZER, choices=LEARNING_RATE_SCHEDULES
    )
    lr_warmup_steps: int = flag(500, "updates until it is reached", int, _OPTIMIZER)
    optimizer: str = flag(
        "adamw",
        "what turns gradients into updates; prodigy finds its learning rate, of which "
        "--learning_rate is a factor, 1 by default",
        str,
        _OPTIMIZER,
        choices=OPTIMIZERS,
    )
    use_8bit_adam: bool = flag(
        False, "moments of one byte: --optimizer adamw_8bit", bool, _OPTIMIZER
    )
    adam_beta1: float = flag(0.9, "decay of the first moment", float, _OPTIMIZER)
    adam_beta2: float = flag(
        0.999, "decay of the second moment; 0.99 with --optimizer lion", float, _OPTIMIZER
    )
    adam_weight_decay: float = flag(1e-2, "weight decay", float, _OPTIMIZER)
    adam_epsilon: float = flag(1e-8, "added to the root of the second moment", float, _OPTIMIZER)
    max_grad_norm: float = flag(1.0, "norm at which gradients are clipped", float, _OPTIMIZER)

    @property
    def optimizer_name(self) -> str:
        """The optimiser: `--optimizer`, or what the switch that others know it by means."""
        return "adamw_8bit" if self.use_8bit_adam else self.optimizer


def check_optimizer_settings(settings: "TrainSettings") -> None:
    """Refuses optimisers beside settings that they cannot have.

    Raises:
        UsageError: names the flags.
    """
    if settings.use_8bit_adam and settings.optimizer not in ("adamw", "adamw_8bit"):
        raise UsageError(
            f"--use_8bit_adam is --optimizer adamw_8bit, and --optimizer is {settings.optimizer}: "
            "give one of them."
        )
    if settings.optimizer == "schedule_free":
        if not settings.lr_scheduler.startswith("constant"):
            raise UsageError(
                f"--lr_scheduler {settings.lr_scheduler} falls, and --optimizer schedule_free "
                "averages in place of it: give constant or constant_with_warmup."
            )
        if settings.ema_decay is not None:
            raise UsageError(
                "--ema_decay keeps a moving average, and --optimizer schedule_free has one of its "
                "own, which is exported: leave --ema_decay out."
            )
    if settings.disable_optimizer_restore and settings.optimizer in ("schedule_free", "prodigy"):
        raise UsageError(
            f"--disable_optimizer_restore: what --optimizer {settings.optimizer} remembers is more "
            "than moments, and cannot be left behind."
        )
