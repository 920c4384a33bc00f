"""Low-rank factors beside frozen weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

Each projection of an attention layer gets two factors whose product is added to its weight; alpha
equals the rank, so that nothing else multiplies it. The product starts at zero.
"""

import dataclasses
import math
import zlib
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.choices import LORA_TARGETS
from hotshot_jax.convert.tensors.rules import TEMPORAL, Path, flat_parameters, torch_slots
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import Factors, lora_metadata, lora_tensors
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.training.trainees.trainee import Division, Origin, Parameters

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for in a folder."""

_PROJECTIONS = ("to_q", "to_k", "to_v")
_KERNEL, _DOWN, _UP = "kernel", "lora_down", "lora_up"


@dataclasses.dataclass(frozen=True)
class LoraTrainee:
    """The UNet with factors for its attention projections; all of the UNet is frozen.

    Of a kernel `[..., in, out]` the factors are `lora_down` `[..., in, rank]` and `lora_up`
    `[..., rank, out]`, float32; stacked kernels have stacked factors.

    Attributes:
        unet: the UNet, of which nothing trains.
        stems: of each kernel that has factors, its name without the last part.
        rank: inner size of the factors.
    """

    unet: Division
    stems: tuple[str, ...]
    rank: int

    @classmethod
    def of(cls, module: nnx.Module, targets: str, rank: int) -> "LoraTrainee":
        """Adds factors to a (concrete or abstract) UNet.

        Args:
            module: the UNet.
            targets: one of `choices.LORA_TARGETS`, the layers whose attention gets factors.
            rank: at least 1.

        Raises:
            UsageError: the targets are unknown, or the rank is less than 1.
        """
        if targets not in LORA_TARGETS:
            raise UsageError(
                f"`lora_targets` {targets} is unknown; expected {', '.join(LORA_TARGETS)}."
            )
        if rank < 1:
            raise UsageError(f"`lora_rank` is {rank}; expected at least 1.")
        unet = dataclasses.replace(Division.of(module, "unet"), trained=frozenset())
        stems = [
            name.removesuffix(f"/{_KERNEL}")
            for name, path in unet.paths.items()
            if _is_projection(path)
            and targets in ("both", "temporal" if TEMPORAL in path else "spatial")
        ]
        return cls(unet, tuple(stems), rank)

    @property
    def trained(self) -> frozenset[str]:
        """Names of the factors."""
        return frozenset(f"{stem}/{part}" for stem in self.stems for part in (_DOWN, _UP))

    @property
    def largest_rank(self) -> int:
        """The highest rank that any of the matrices with factors can have."""
        shapes = {path: leaf.shape for path, leaf in flat_parameters(self.unet.module).items()}
        kernels = [shapes[self.unet.paths[f"{stem}/{_KERNEL}"]] for stem in self.stems]
        return max((min(shape[-2:]) for shape in kernels), default=0)

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`. The lower factors are drawn as PEFT draws them, the upper ones are zero.

        They depend on the seed and their own names alone.
        """
        _, frozen = self.unet.start(values, seed)
        trained = {}
        for stem in self.stems:
            *stack, inputs, outputs = frozen[f"{stem}/{_KERNEL}"].shape
            generator = np.random.default_rng([seed, zlib.crc32(stem.encode())])
            # Kaiming's uniform bound for a slope of sqrt(5).
            bound = 1 / math.sqrt(inputs)
            down = generator.uniform(-bound, bound, (*stack, inputs, self.rank))
            trained[f"{stem}/{_DOWN}"] = down.astype(np.float32)
            trained[f"{stem}/{_UP}"] = np.zeros((*stack, self.rank, outputs), np.float32)
        return trained, frozen

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """See `Trainee`. Factors are split as their kernels are, never along the rank."""
        of_kernels = parameter_shardings(self.unet.module, mesh)
        shardings = {name: of_kernels[path] for name, path in self.unet.paths.items()}
        for stem in self.stems:
            *stack, inputs, outputs = shardings[f"{stem}/{_KERNEL}"].spec
            for part, axes in ((_DOWN, (inputs, None)), (_UP, (None, outputs))):
                shardings[f"{stem}/{part}"] = NamedSharding(mesh, PartitionSpec(*stack, *axes))
        return shardings

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The UNet with the products of the factors added to its kernels."""
        values = dict(frozen)
        for stem in self.stems:
            kernel = frozen[f"{stem}/{_KERNEL}"]
            product = jnp.matmul(
                trained[f"{stem}/{_DOWN}"], trained[f"{stem}/{_UP}"], precision="highest"
            )
            # Added before the rounding to the compute dtype, as files are merged when loaded.
            merged = kernel.astype(jnp.float32) + product
            values[f"{stem}/{_KERNEL}"] = merged.astype(kernel.dtype)
        return self.unet.merge({}, values)

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """See `Trainee`."""
        return {"unet": self.merge(trained, frozen)}

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """See `Trainee`: one file, which diffusers, PEFT and the pipeline read."""
        file = folder / LORA_FILE
        factors = {"unet": self.factors(trained)}
        tensors = lora_tensors(factors, alpha=self.rank)
        layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        metadata = lora_metadata(factors, title=file.stem, alpha=self.rank)
        write_safetensors(file, layout, tensors.items(), metadata)

    def factors(self, trained: Mapping[str, Any]) -> dict[str, Factors]:
        """The factors of each module, by its name in PyTorch, in PyTorch's layout."""
        stems = {self.unet.paths[f"{stem}/{_KERNEL}"]: stem for stem in self.stems}
        factors = {}
        for name, slot in torch_slots(self.unet.module).items():
            stem = stems.get(slot.path)
            if stem is None:
                continue
            down, up = (np.asarray(trained[f"{stem}/{part}"]) for part in (_DOWN, _UP))
            if slot.layer is not None:
                down, up = down[slot.layer], up[slot.layer]
            factors[name.removesuffix(".weight")] = Factors(down.T, up.T)
        return factors


def _is_projection(path: Path) -> bool:
    return path[-1] == _KERNEL and (path[-2] in _PROJECTIONS or path[-3:-1] == ("to_out", 0))
