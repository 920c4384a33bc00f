"""What a run of `train.py` starts from beside the model: its flags, and what they refuse."""

import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from hotshot_jax.cli.flags import flag
from hotshot_jax.cli.train.data_settings import DataSettings
from hotshot_jax.errors import UsageError

# `--help` imports nothing heavy.
if TYPE_CHECKING:
    from hotshot_jax.cli.train.settings import TrainSettings

_MODEL = "model"


@dataclasses.dataclass(frozen=True)
class StartSettings(DataSettings):
    """The settings of what training starts from; each field is a flag of the same name."""

    network_weights: str | None = flag(
        None,
        "LoRA to go on training, with --train lora: a file or its folder, whose rank is taken",
        str,
        _MODEL,
        local=True,
    )
    controlnet_model_name_or_path: str | None = flag(
        None,
        "ControlNet to go on training, with --train controlnet: a folder, a file or a Hub id "
        "(default: a new one)",
        str,
        _MODEL,
    )


def with_rank_of_start(settings: "TrainSettings", given: Collection[str]) -> "TrainSettings":
    """The settings with the rank of the LoRA that is started from, if there is one.

    Args:
        settings: of the run.
        given: names of those on the command line.

    Raises:
        UsageError: another rank is asked for.
        HotshotError: the LoRA cannot be read.
    """
    from hotshot_jax.training.trainees.starting_lora import stated_rank

    if settings.network_weights is None:
        return settings
    rank = stated_rank(Path(settings.network_weights))
    default = type(settings).lora_rank
    asked = "lora_rank" in given or settings.lora_rank != default
    if asked and settings.lora_rank != rank:
        raise UsageError(
            f"--lora_rank is {settings.lora_rank}, and the factors in --network_weights "
            f"{settings.network_weights} have rank {rank}: leave --lora_rank out."
        )
    return dataclasses.replace(settings, lora_rank=rank)
