"""What trains: some of the UNet's own parameters, factors added to them, or a ControlNet beside it.

The step, the loop and the checkpoints see parameters by name and the model that they make; which
of these it is they need not know.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any, Protocol

import jax
from jax.sharding import Mesh

from hotshot_jax.convert.tensors.rules import Path

Parameters = dict[str, jax.Array]
"""Parameters by their path, its parts joined with "/"."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """What was trained from.

    Attributes:
        source: the checkpoint. What did not train is read from it anew, as it was before it was
            rounded to a compute dtype.
        unet_path: where the UNet came from if not from there.
        scheduler_config: content of `scheduler_config.json`, if not the source's.
    """

    source: FilePath
    unet_path: str | None = None
    scheduler_config: Mapping[str, Any] | None = None


class Trainee(Protocol):
    """A model taken apart into what trains and what does not."""

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """What trains, and what does not, before the first step.

        Args:
            values: float32 parameters of the UNet, in host memory.
            seed: of initial values that the UNet does not have.

        Returns:
            Arrays by name, in host memory.
        """
        ...

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """Where each parameter goes, by name; what trains and what does not."""
        ...

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The model that is trained, called as the UNet is, control frames after the sizes."""
        ...

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """The models that a pipeline needs to show what was trained, by `Components`' names."""
        ...

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """Writes what was trained, for PyTorch users.

        Args:
            folder: an empty one.
            trained: NumPy arrays of what trained.
            origin: what it was trained from.

        Raises:
            HotshotError: the source is gone.
        """
        ...
