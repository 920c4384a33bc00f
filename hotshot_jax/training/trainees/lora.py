"""A LoRA as what trains: factors for kernels of the UNet and, if wanted, of both text encoders.

Each projection of an attention layer, or any layer, gets them; see `factored`.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path as FilePath
from typing import Any

import jax
from flax import nnx
from jax.sharding import Mesh

from hotshot_jax.choices import LORA_LAYERS, LORA_TARGETS
from hotshot_jax.convert.tensors.rules import TEMPORAL, Path, torch_slots
from hotshot_jax.convert.tensors.safetensors_file import write_safetensors
from hotshot_jax.errors import UsageError
from hotshot_jax.lora import Factors, lora_metadata, lora_tensors
from hotshot_jax.models import CLIPTextModel
from hotshot_jax.training.trainees.factored import Factored
from hotshot_jax.training.trainees.starting_lora import starting_factors
from hotshot_jax.training.trainees.trainee import Origin, Parameters

LORA_FILE = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for in a folder."""

TEXT_ENCODERS = ("text_encoder", "text_encoder_2")

_UNET = "unet"
_PROJECTIONS = ("to_q", "to_k", "to_v")
# Convolutions and linear layers beside them, as diffusers' few-step LoRAs of SDXL have them. What
# takes in or gives out samples, times and texts is left alone.
_OTHERS = (
    *("conv", "conv1", "conv2", "conv_shortcut"),
    *("proj", "proj_in", "proj_out", "time_emb_proj", "net/2"),
)
# Of text encoders: those of diffusers' LoRA scripts, and the others that kohya's have.
_TEXT_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
_TEXT_OTHERS = ("fc1", "fc2")


@dataclasses.dataclass(frozen=True)
class LoraTrainee:
    """The UNet with factors, and both text encoders if they get some; all that they had is frozen.

    Parameters of a text encoder have its name before their own: `text_encoder_2/...`.

    Attributes:
        unet: the UNet.
        encoders: "text_encoder" and "text_encoder_2", or neither.
    """

    unet: Factored
    encoders: Mapping[str, Factored] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(
        cls,
        module: nnx.Module,
        targets: str,
        rank: int,
        layers: str = "attention",
        encoders: Mapping[str, nnx.Module] | None = None,
    ) -> "LoraTrainee":
        """Adds factors to a (concrete or abstract) UNet.

        Args:
            module: the UNet.
            targets: one of `choices.LORA_TARGETS`, its layers that get factors.
            rank: at least 1.
            layers: one of `choices.LORA_LAYERS`, "attention" for the projections of attention
                alone, "all" for the convolutions and linear layers around them too.
            encoders: both text encoders, by the names of `TEXT_ENCODERS`, where they get factors
                too.

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
        everywhere = layers == "all"

        def in_unet(path: Path) -> bool:
            chosen = _is_projection(path) or (everywhere and _is_other(path))
            return chosen and targets in ("both", "temporal" if TEMPORAL in path else "spatial")

        in_text = _TEXT_PROJECTIONS + (_TEXT_OTHERS if everywhere else ())
        return cls(
            Factored.of(module, rank, in_unet),
            {
                name: Factored.of(encoder, rank, lambda path: path[-2] in in_text, f"{name}/")
                for name, encoder in (encoders or {}).items()
            },
        )

    def starting_from(self, path: FilePath) -> "LoraTrainee":
        """The same, with the factors of a file in place of those that change nothing.

        A module whose rank there is a smaller one has the rest of its factors as in a new start.

        Args:
            path: a LoRA, or a folder with it; see `starting_factors`.

        Raises:
            HotshotError: it cannot be read, or has something else than factors of this rank for
                layers that get them here.
        """
        parts = self._parts()
        slots = {name: torch_slots(part.model.module) for name, part in parts.items()}
        factors = starting_factors(path, slots)
        begun = {
            name: part.starting_from(factors.get(name, {}), path) for name, part in parts.items()
        }
        return LoraTrainee(begun.pop(_UNET), begun)

    @property
    def rank(self) -> int:
        """Inner size of the factors."""
        return self.unet.rank

    @property
    def trained(self) -> frozenset[str]:
        """Names of the factors."""
        return frozenset().union(*(part.trained for part in self._parts().values()))

    @property
    def largest_rank(self) -> int:
        """The highest rank that any of the matrices with factors can have."""
        return max(part.largest_rank for part in self._parts().values())

    def start(self, values: Mapping[Path, Any], seed: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Trainee`. The lower factors are drawn as PEFT draws them, the upper ones are zero.

        They depend on the seed and their own names alone.
        """
        trained, frozen = self.unet.start(values, seed)
        for name, encoder in self.encoders.items():
            paths = encoder.model.paths.values()
            factors, rest = encoder.start({path: values[name, *path] for path in paths}, seed)
            trained |= factors
            frozen |= rest
        return trained, frozen

    def shardings(self, mesh: Mesh) -> Mapping[str, jax.sharding.Sharding]:
        """See `Trainee`. Factors are split as their kernels are, never along the rank."""
        return {
            name: sharding
            for part in self._parts().values()
            for name, sharding in part.shardings(mesh).items()
        }

    def merge(self, trained: Parameters, frozen: Parameters) -> Any:
        """The UNet with the products of the factors added to its kernels."""
        return self.unet.merge(trained, frozen)

    def without_factors(self, frozen: Parameters) -> Any:
        """The UNet as it was before."""
        return self.unet.without_factors(frozen)

    def text_encoders(
        self, trained: Parameters, frozen: Parameters
    ) -> tuple[CLIPTextModel, CLIPTextModel]:
        """Both text encoders with the products of their factors, where they have some."""
        first, second = (self.encoders[name].merge(trained, frozen) for name in TEXT_ENCODERS)
        return first, second

    def components(self, trained: Parameters, frozen: Parameters) -> dict[str, Any]:
        """See `Trainee`."""
        return {name: part.merge(trained, frozen) for name, part in self._parts().items()}

    def export(self, folder: FilePath, trained: Parameters, origin: Origin) -> None:
        """See `Trainee`: one file, which diffusers, PEFT and the pipeline read."""
        file = folder / LORA_FILE
        factors = self.factors(trained)
        tensors = lora_tensors(factors, alpha=self.rank)
        layout = {name: (tensor.shape, tensor.dtype) for name, tensor in tensors.items()}
        metadata = lora_metadata(factors, title=file.stem, alpha=self.rank)
        write_safetensors(file, layout, tensors.items(), metadata)

    def factors(self, trained: Mapping[str, Any]) -> dict[str, dict[str, Factors]]:
        """The factors by model and module, each by its name in PyTorch, in PyTorch's layout."""
        return {name: part.factors(trained) for name, part in self._parts().items()}

    def _parts(self) -> dict[str, Factored]:
        return {_UNET: self.unet, **self.encoders}


def _is_projection(path: Path) -> bool:
    return path[-2] in _PROJECTIONS or path[-3:-1] == ("to_out", 0)


def _is_other(path: Path) -> bool:
    return "/".join(map(str, path[:-1])).endswith(tuple(f"/{name}" for name in _OTHERS))
