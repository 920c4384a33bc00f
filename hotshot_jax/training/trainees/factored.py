"""Low-rank factors beside the frozen weights of one model (https://arxiv.org/abs/2106.09685).

Kernels get two factors each, whose product is added to them; alpha equals the rank, so that nothing
else multiplies it. The product starts at zero.
"""

import dataclasses
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hotshot_jax.convert.tensors.rules import Path, Slot, flat_parameters, torch_slots
from hotshot_jax.convert.tensors.tensor_source import first_names
from hotshot_jax.errors import HotshotError
from hotshot_jax.lora import Factors
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.training.trainees.trainee import Division, Parameters

_CONVOLUTION = 4  # axes of a convolution's kernel
_KERNEL, _DOWN, _UP = "kernel", "lora_down", "lora_up"


@dataclasses.dataclass(frozen=True)
class Factored:
    """A model with factors for kernels of its layers; all of the model is frozen.

    Of a kernel `[..., in, out]` the factors are `lora_down` `[..., in, rank]` and `lora_up`
    `[..., rank, out]`, float32; stacked kernels have stacked factors. Of a convolution's
    `[height, width, in, out]` they are `[height, width, in, rank]` and `[rank, out]`.

    Attributes:
        model: the model, of which nothing trains.
        stems: of each kernel that has factors, its name without the last part.
        rank: inner size of the factors.
        beginning: factors to start from, by module as `factors` gives them; those of other modules
            start at a product of zero.
    """

    model: Division
    stems: tuple[str, ...]
    rank: int
    beginning: Mapping[str, Factors] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, module: Any, rank: int, has_factors: Callable[[Path], bool], prefix: str = ""
    ) -> "Factored":
        """Adds factors to a (concrete or abstract) model.

        Args:
            module: the model.
            rank: at least 1.
            has_factors: whether the layer of a kernel gets them, by the kernel's path.
            prefix: before the name of every parameter.
        """
        whole = Division.of(module, "unet")
        paths = {prefix + name: path for name, path in whole.paths.items()}
        stems = [
            name.removesuffix(f"/{_KERNEL}")
            for name, path in paths.items()
            if path[-1] == _KERNEL and has_factors(path)
        ]
        return cls(Division(whole.module, paths, frozenset()), tuple(stems), rank)

    def starting_from(self, factors: Mapping[str, Factors], path: FilePath) -> "Factored":
        """The same, with these factors in place of those that change nothing.

        A module whose rank there is a smaller one has the rest of its factors as in a new start.

        Args:
            factors: by module, of the model's own modules.
            path: where they are from, for messages.

        Raises:
            HotshotError: there are factors of layers that get none here, or of a larger rank.
        """
        left_out = tuple(factors.keys() - self._modules())
        if left_out:
            raise HotshotError(
                f"`network_weights` {path} has factors of {len(left_out)} layers that "
                f"`lora_targets` and `lora_layers` leave out "
                f"({first_names(sorted(left_out))}); choose those that it was trained with."
            )
        rank = max((len(each.down) for each in factors.values()), default=0)
        if rank > self.rank:
            raise HotshotError(
                f"`network_weights` {path} has factors of rank {rank}, and `lora_rank` is "
                f"{self.rank}."
            )
        return dataclasses.replace(self, beginning=factors)

    @property
    def trained(self) -> frozenset[str]:
        """Names of the factors."""
        return frozenset(f"{stem}/{part}" for stem in self.stems for part in (_DOWN, _UP))

    @property
    def largest_rank(self) -> int:
        """The highest rank that any of the matrices with factors can have."""
        shapes = {path: leaf.shape for path, leaf in flat_parameters(self.model.module).items()}
        kernels = [shapes[self.model.paths[f"{stem}/{_KERNEL}"]] for stem in self.stems]
        return max((min(_fan_in(shape), shape[-1]) for shape in kernels), default=0)

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`. The lower factors are drawn as PEFT draws them, the upper ones are zero.

        They depend on the seed and their own names alone.
        """
        _, frozen = self.model.start(values, seed)
        trained = {}
        for stem in self.stems:
            *before, outputs = shape = frozen[f"{stem}/{_KERNEL}"].shape
            generator = np.random.default_rng([seed, zlib.crc32(stem.encode())])
            # Kaiming's uniform bound for a slope of sqrt(5).
            bound = 1 / math.sqrt(_fan_in(shape))
            down = generator.uniform(-bound, bound, (*before, self.rank))
            trained[f"{stem}/{_DOWN}"] = down.astype(np.float32)
            trained[f"{stem}/{_UP}"] = np.zeros((*_stack(shape), self.rank, outputs), np.float32)
        for module, (stem, slot) in self._modules().items():
            if module in self.beginning:
                down, up = _flax_factors(slot, self.beginning[module])
                rank = len(up)
                layer = () if slot.layer is None else (slot.layer,)
                trained[f"{stem}/{_DOWN}"][layer][..., :rank] = down
                trained[f"{stem}/{_UP}"][layer][:rank] = up
        return trained, frozen

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """See `Trainee`. Factors are split as their kernels are, never along the rank."""
        of_kernels = parameter_shardings(self.model.module, mesh)
        shardings = {name: of_kernels[path] for name, path in self.model.paths.items()}
        for stem in self.stems:
            spec = tuple(shardings[f"{stem}/{_KERNEL}"].spec)
            *before, outputs = spec
            for part, axes in ((_DOWN, (*before, None)), (_UP, (*_stack(spec), None, outputs))):
                shardings[f"{stem}/{part}"] = NamedSharding(mesh, PartitionSpec(*axes))
        return shardings

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The model with the products of the factors added to its kernels.

        Args:
            trained: factors, perhaps with those of other models.
            frozen: what does not train, likewise.
        """
        values = {name: frozen[name] for name in self.model.paths}
        for stem in self.stems:
            kernel = frozen[f"{stem}/{_KERNEL}"]
            product = jnp.matmul(
                trained[f"{stem}/{_DOWN}"], trained[f"{stem}/{_UP}"], precision="highest"
            )
            # Added before the rounding to the compute dtype, as files are merged when loaded.
            merged = kernel.astype(jnp.float32) + product
            values[f"{stem}/{_KERNEL}"] = merged.astype(kernel.dtype)
        return self.model.merge({}, values)

    def without_factors(self, frozen: Parameters) -> Any:
        """The model as it was before."""
        return self.model.merge({}, {name: frozen[name] for name in self.model.paths})

    def factors(self, trained: Mapping[str, Any]) -> dict[str, Factors]:
        """The factors of each module, by its name in PyTorch, in PyTorch's layout."""
        factors = {}
        for module, (stem, slot) in self._modules().items():
            down, up = (np.asarray(trained[f"{stem}/{part}"]) for part in (_DOWN, _UP))
            if slot.layer is not None:
                down, up = down[slot.layer], up[slot.layer]
            factors[module] = _torch_factors(slot, down, up)
        return factors

    def _modules(self) -> dict[str, tuple[str, Slot]]:
        """Of each module in PyTorch that has factors: the stem, and where its weight is."""
        stems = {self.model.paths[f"{stem}/{_KERNEL}"]: stem for stem in self.stems}
        return {
            name.removesuffix(".weight"): (stems[slot.path], slot)
            for name, slot in torch_slots(self.model.module).items()
            if slot.path in stems
        }


def _stack(of_kernel: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a kernel's shape or split has for the layers of a stack."""
    return () if len(of_kernel) == _CONVOLUTION else of_kernel[:-2]


def _fan_in(shape: tuple[int, ...]) -> int:
    return math.prod(shape[len(_stack(shape)) : -1])


def _torch_factors(slot: Slot, down: np.ndarray, up: np.ndarray) -> Factors:
    if len(slot.axes) < _CONVOLUTION:
        return Factors(down.T, up.T)
    # `[rank, in, height, width]` and `[out, rank, 1, 1]`.
    return Factors(down.transpose(np.argsort(slot.axes)), up.T[..., None, None])


def _flax_factors(slot: Slot, factors: Factors) -> tuple[np.ndarray, np.ndarray]:
    """The inverse of `_torch_factors`; the factor up is `[rank, out]` in either case."""
    return factors.down.transpose(slot.axes), factors.up.reshape(len(factors.up), -1).T
