"""Low-rank factors beside frozen weights (Hu et al. 2021, https://arxiv.org/abs/2106.09685).

Each projection of an attention layer, or any layer, gets two factors whose product is added to its
weight; alpha equals the rank, so that nothing else multiplies it. The product starts at zero.
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

from hotshot_jax.choices import LORA_LAYERS, LORA_TARGETS
from hotshot_jax.convert.tensors.rules import TEMPORAL, Path, Slot, flat_parameters, torch_slots
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.convert.tensors.tensor_source import first_names
from hotshot_jax.errors import HotshotError, UsageError
from hotshot_jax.lora import Factors, lora_metadata, lora_tensors
from hotshot_jax.parallel.rules import parameter_shardings
from hotshot_jax.training.trainees.starting_lora import starting_factors
from hotshot_jax.training.trainees.trainee import Division, Origin, Parameters

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for in a folder."""

_PROJECTIONS = ("to_q", "to_k", "to_v")
# Convolutions and linear layers beside them, as diffusers' few-step LoRAs of SDXL have them. What
# takes in or gives out samples, times and texts is left alone.
_OTHERS = (
    *("conv", "conv1", "conv2", "conv_shortcut"),
    *("proj", "proj_in", "proj_out", "time_emb_proj", "net/2"),
)
_CONVOLUTION = 4  # axes of a convolution's kernel
_KERNEL, _DOWN, _UP = "kernel", "lora_down", "lora_up"


@dataclasses.dataclass(frozen=True)
class LoraTrainee:
    """The UNet with factors for kernels of its layers; all of the UNet is frozen.

    Of a kernel `[..., in, out]` the factors are `lora_down` `[..., in, rank]` and `lora_up`
    `[..., rank, out]`, float32; stacked kernels have stacked factors. Of a convolution's
    `[height, width, in, out]` they are `[height, width, in, rank]` and `[rank, out]`.

    Attributes:
        unet: the UNet, of which nothing trains.
        stems: of each kernel that has factors, its name without the last part.
        rank: inner size of the factors.
        beginning: factors to start from, by module as `factors` gives them; those of other modules
            start at a product of zero.
    """

    unet: Division
    stems: tuple[str, ...]
    rank: int
    beginning: Mapping[str, Factors] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls, module: nnx.Module, targets: str, rank: int, layers: str = "attention"
    ) -> "LoraTrainee":
        """Adds factors to a (concrete or abstract) UNet.

        Args:
            module: the UNet.
            targets: one of `choices.LORA_TARGETS`, the layers that get factors.
            rank: at least 1.
            layers: one of `choices.LORA_LAYERS`, "attention" for the projections of attention
                alone, "all" for the convolutions and linear layers around them too.

        Raises:
            UsageError: the targets or layers are unknown, or the rank is less than 1.
        """
        for name, value, known in (
            ("lora_targets", targets, LORA_TARGETS),
            ("lora_layers", layers, LORA_LAYERS),
        ):
            if value not in known:
                raise UsageError(f"`{name}` {value} is unknown; expected {', '.join(known)}.")
        if rank < 1:
            raise UsageError(f"`lora_rank` is {rank}; expected at least 1.")
        unet = dataclasses.replace(Division.of(module, "unet"), trained=frozenset())
        stems = [
            name.removesuffix(f"/{_KERNEL}")
            for name, path in unet.paths.items()
            if (_is_projection(path) or (layers == "all" and _is_other(path)))
            and targets in ("both", "temporal" if TEMPORAL in path else "spatial")
        ]
        return cls(unet, tuple(stems), rank)

    def starting_from(self, path: FilePath) -> "LoraTrainee":
        """The same, with the factors of a file in place of those that change nothing.

        A module whose rank there is a smaller one has the rest of its factors as in a new start.

        Args:
            path: a LoRA, or a folder with it; see `starting_factors`.

        Raises:
            HotshotError: it cannot be read, or has something else than factors of this rank for
                layers that get them here.
        """
        factors = starting_factors(path, torch_slots(self.unet.module))
        left_out = tuple(factors.keys() - self._modules())
        if left_out:
            raise HotshotError(
                f"`network_weights` {path} has factors of {len(left_out)} layers that "
                f"`lora_targets` and `lora_layers` leave out "
                f"({first_names(sorted(left_out))}); choose those that it was trained with."
            )
        rank = max(len(each.down) for each in factors.values())
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
        shapes = {path: leaf.shape for path, leaf in flat_parameters(self.unet.module).items()}
        kernels = [shapes[self.unet.paths[f"{stem}/{_KERNEL}"]] for stem in self.stems]
        return max((min(_fan_in(shape), shape[-1]) for shape in kernels), default=0)

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`. The lower factors are drawn as PEFT draws them, the upper ones are zero.

        They depend on the seed and their own names alone.
        """
        _, frozen = self.unet.start(values, seed)
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
        of_kernels = parameter_shardings(self.unet.module, mesh)
        shardings = {name: of_kernels[path] for name, path in self.unet.paths.items()}
        for stem in self.stems:
            spec = tuple(shardings[f"{stem}/{_KERNEL}"].spec)
            *before, outputs = spec
            for part, axes in ((_DOWN, (*before, None)), (_UP, (*_stack(spec), None, outputs))):
                shardings[f"{stem}/{part}"] = NamedSharding(mesh, PartitionSpec(*axes))
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

    def without_factors(self, frozen: Parameters) -> Any:
        """The UNet as it was before."""
        return self.unet.merge({}, dict(frozen))

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
        factors = {}
        for module, (stem, slot) in self._modules().items():
            down, up = (np.asarray(trained[f"{stem}/{part}"]) for part in (_DOWN, _UP))
            if slot.layer is not None:
                down, up = down[slot.layer], up[slot.layer]
            factors[module] = _torch_factors(slot, down, up)
        return factors

    def _modules(self) -> dict[str, tuple[str, Slot]]:
        """Of each module in PyTorch that has factors: the stem, and where its weight is."""
        stems = {self.unet.paths[f"{stem}/{_KERNEL}"]: stem for stem in self.stems}
        return {
            name.removesuffix(".weight"): (stems[slot.path], slot)
            for name, slot in torch_slots(self.unet.module).items()
            if slot.path in stems
        }


def _is_projection(path: Path) -> bool:
    return path[-1] == _KERNEL and (path[-2] in _PROJECTIONS or path[-3:-1] == ("to_out", 0))


def _is_other(path: Path) -> bool:
    return path[-1] == _KERNEL and "/".join(map(str, path[:-1])).endswith(
        tuple(f"/{name}" for name in _OTHERS)
    )


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
